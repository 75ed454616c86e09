"""The cluster, for everyone else: `AsyncCluster` on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from numpy.typing import NDArray

from lepton_ai.cluster.arrays import Splits
from lepton_ai.cluster.client import AsyncCluster
from lepton_ai.cluster.endpoint import AsyncEndpoint
from lepton_ai.cluster.jobs import JobOptions
from lepton_ai.cluster.queued import AsyncQueuedRequest
from lepton_ai.cluster.storage import AsyncStorage
from lepton_ai.cluster.sweeping import SweepResult, Trial
from lepton_ai.cluster.workers import AsyncWorkers
from lepton_ai.learn.remote import FitRequest, FitResult
from lepton_ai.proto.v1 import (
    deployment_pb2,
    gateway_pb2,
    job_pb2,
    node_pb2,
    options_pb2,
    storage_pb2,
    task_pb2,
)
from lepton_ai.sweeps import Rungs, Space

if TYPE_CHECKING:
    from lepton_ai.learn.model import Model

__all__ = ["Cluster", "Endpoint"]

_ResultT = TypeVar("_ResultT")


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="lepton-cluster", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _ResultT]) -> _ResultT:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # a Ctrl-C here ends the work there
            raise

    def iterate(self, items: AsyncIterator[_ResultT]) -> Iterator[_ResultT]:
        done = object()
        while (item := self.run(_next(items, done))) is not done:
            yield item  # pyright: ignore[reportReturnType] - `done` was told apart above

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Endpoint:
    """A deployed model that answers. Made by `Cluster.deploy` and `Cluster.endpoint`."""

    def __init__(self, inner: AsyncEndpoint, loop: _Loop) -> None:
        self._inner = inner
        self._loop = loop

    @property
    def name(self) -> str:
        """The deployment's name."""
        return self._inner.name

    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row of raw input."""
        return self._loop.run(self._inner.row_shape())

    def predict(self, x: Any, *, timeout_s: float = 60.0) -> NDArray[Any]:
        """What the model makes of raw input, however many rows; see `AsyncEndpoint.predict`."""
        return self._loop.run(self._inner.predict(x, timeout_s=timeout_s))

    def submit(
        self, x: Any, *, webhook: str = "", idempotency_key: str = "", timeout_s: float = 60.0
    ) -> QueuedRequest:
        """Put raw input into the cluster's queue; see `AsyncEndpoint.submit`."""
        submission = self._inner.submit(
            x, webhook=webhook, idempotency_key=idempotency_key, timeout_s=timeout_s
        )
        return QueuedRequest(self._loop.run(submission), self._loop)


class QueuedRequest:
    """A request that was taken. Made by `Endpoint.submit` and `Cluster.queued`."""

    def __init__(self, inner: AsyncQueuedRequest, loop: _Loop) -> None:
        self._inner = inner
        self._loop = loop

    @property
    def id(self) -> str:
        """By which whoever has a key of the same tenant finds it."""
        return self._inner.id

    def result(self, *, timeout_s: float = 60.0) -> NDArray[Any]:
        """The model's first output, once it is there; see `AsyncQueuedRequest.result`."""
        return self._loop.run(self._inner.result(timeout_s=timeout_s))

    def status(self) -> dict[str, Any]:
        """How it stands: ``status`` is "queued", "succeeded" or "failed"."""
        return self._loop.run(self._inner.status())


class Workers:
    """The workers of a cluster; its calls are those of `AsyncWorkers`."""

    def __init__(self, inner: AsyncWorkers, loop: _Loop) -> None:
        self._inner = inner
        self._loop = loop

    def cordon(self, node_id: str) -> None:
        """Give a worker no new work; what runs there goes on."""
        self._loop.run(self._inner.cordon(node_id))

    def drain(self, node_id: str) -> None:
        """Move what runs on a worker to others; its record tells how many tasks are left."""
        self._loop.run(self._inner.drain(node_id))

    def uncordon(self, node_id: str) -> None:
        """Give a worker new work again, whether it was cordoned or drained."""
        self._loop.run(self._inner.uncordon(node_id))


class Storage:
    """The storage nodes of a cluster; its calls are those of `AsyncStorage`."""

    def __init__(self, inner: AsyncStorage, loop: _Loop) -> None:
        self._inner = inner
        self._loop = loop

    def drain(self, node_id: str) -> None:
        """Have a storage node give its chunks to the others; its record tells how many are left."""
        self._loop.run(self._inner.drain(node_id))

    def undrain(self, node_id: str) -> None:
        """Let a storage node take chunks again."""
        self._loop.run(self._inner.undrain(node_id))

    def check(self) -> Iterator[storage_pb2.CheckStorageResponse]:
        """Read all that every node has, and check it: progress, findings, then the summary."""
        return self._loop.iterate(self._inner.check())

    def usage(self) -> list[storage_pb2.TenantUsage]:
        """What tenants store and may store, as of a few seconds ago."""
        return self._loop.run(self._inner.usage())

    def set_quota(self, tenant: str, size_bytes: int) -> None:
        """Limit what a tenant stores; 0 takes the limit away."""
        self._loop.run(self._inner.set_quota(tenant, size_bytes))

    def rotate_master_key(self) -> int:
        """Wrap the keys that chunks are encrypted with by the newest master key."""
        return self._loop.run(self._inner.rotate_master_key())


class Cluster:
    """A cluster, through its gateway. Close it when done, or use it as a context manager.

    Arguments and errors of its calls are those of `AsyncCluster`.

    Args:
        address: ``host:port`` of the gateway; by default ``LEPTON_ADDRESS``, else what
            ``lepton up`` wrote.
        api_key: A key; by default ``LEPTON_API_KEY``, else what ``lepton up`` wrote.

    Raises:
        NotFoundError: No cluster is known.

    Example:
        >>> with Cluster() as cluster:  # doctest: +SKIP
        ...     model.fit(x, y, epochs=3, cluster=cluster, workers=2)
        ...     endpoint = cluster.deploy(model, name="digits", replicas=2)
        ...     endpoint.predict(x[:5])
    """

    def __init__(self, address: str | None = None, api_key: str | None = None) -> None:
        self._loop = _Loop()
        try:
            self._inner = self._loop.run(_connected(address, api_key))
        except BaseException:
            self._loop.close()
            raise

    @property
    def workers(self) -> Workers:
        """Its workers, for those who look after them."""
        return Workers(self._inner.workers, self._loop)

    @property
    def storage(self) -> Storage:
        """Its storage nodes, for those who look after them."""
        return Storage(self._inner.storage, self._loop)

    @property
    def address(self) -> str:
        """``host:port`` of the gateway."""
        return self._inner.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._loop.run(self._inner.close())
        self._loop.close()

    def upload_files(
        self,
        name: str,
        path: str | Path,
        *,
        label: str = "",
        image_size: tuple[int, int] | None = None,
        replication: int = 0,
    ) -> storage_pb2.Dataset:
        """Store files as the next version of a dataset: a table, arrays, images, an archive."""
        return self._loop.run(
            self._inner.upload_files(
                name, path, label=label, image_size=image_size, replication=replication
            )
        )

    def dataset(self, name: str, version: int = 0) -> storage_pb2.Dataset:
        """A dataset's version, or the newest for 0."""
        return self._loop.run(self._inner.dataset(name, version))

    def rows(
        self, dataset: str, start: int = 0, stop: int | None = None, *, split: str = "train"
    ) -> dict[str, NDArray[Any]]:
        """Rows of a stored dataset, by column; only these are fetched."""
        return self._loop.run(self._inner.rows(dataset, start, stop, split=split))

    def upload(self, name: str, splits: Splits, *, replication: int = 0) -> storage_pb2.Dataset:
        """Store arrays as the next version of a dataset."""
        return self._loop.run(self._inner.upload(name, splits, replication=replication))

    def submit(
        self,
        model: Model,
        dataset: str,
        *,
        epochs: int = 10,
        batch_size: int = 64,
        validation_fraction: float = 0.0,
        shuffle: bool = True,
        shuffle_window_bytes: int = 0,
        seed: int = 0,
        checkpoint_interval_s: int = 60,
        checkpoint_every_steps: int = 0,
        checkpoints_kept: int = 2,
        shards: int = 1,
        publish_as: str = "",
        **options: Unpack[JobOptions],
    ) -> job_pb2.Job:
        """Train a compiled model on a stored dataset, without waiting for it."""
        return self._loop.run(
            self._inner.submit(
                model,
                dataset,
                epochs=epochs,
                batch_size=batch_size,
                validation_fraction=validation_fraction,
                shuffle=shuffle,
                shuffle_window_bytes=shuffle_window_bytes,
                seed=seed,
                checkpoint_interval_s=checkpoint_interval_s,
                checkpoint_every_steps=checkpoint_every_steps,
                checkpoints_kept=checkpoints_kept,
                shards=shards,
                publish_as=publish_as,
                **options,
            )
        )

    def submit_script(
        self,
        script: str | Path,
        arguments: Sequence[str] = (),
        *,
        folder: str | Path | None = None,
        **options: Unpack[JobOptions],
    ) -> job_pb2.Job:
        """Run a program of your own on workers as torchrun would, without waiting for it."""
        return self._loop.run(
            self._inner.submit_script(script, arguments, folder=folder, **options)
        )

    def submit_evaluation(
        self,
        model: str,
        dataset: str,
        *,
        split: str = "",
        variant: str = "",
        **options: Unpack[JobOptions],
    ) -> job_pb2.Job:
        """Measure a published model on a stored dataset, without waiting for it."""
        return self._loop.run(
            self._inner.submit_evaluation(model, dataset, split=split, variant=variant, **options)
        )

    def submit_prediction(
        self,
        model: str,
        dataset: str,
        output: str,
        *,
        split: str = "",
        variant: str = "",
        **options: Unpack[JobOptions],
    ) -> job_pb2.Job:
        """Store what a published model makes of a stored dataset, without waiting for it."""
        return self._loop.run(
            self._inner.submit_prediction(
                model, dataset, output, split=split, variant=variant, **options
            )
        )

    def sweep(
        self,
        what: Model | str | Path,
        space: Space,
        *,
        metric: str = "loss",
        maximize: bool = False,
        trials: int = 0,
        rungs: Rungs | None = None,
        parallel: int = 2,
        dataset: str = "",
        arguments: Sequence[str] = (),
        seed: int = 0,
        tell: Callable[[Trial], None] = lambda trial: None,
        **options: Unpack[JobOptions],
    ) -> SweepResult:
        """Try parameters and find the best, with a job for each trial; waits for them."""
        return self._loop.run(
            self._inner.sweep(
                what,
                space,
                metric=metric,
                maximize=maximize,
                trials=trials,
                rungs=rungs,
                parallel=parallel,
                dataset=dataset,
                arguments=arguments,
                seed=seed,
                tell=tell,
                **options,
            )
        )

    def submit_spec(self, spec: job_pb2.JobSpec, idempotency_key: str = "") -> job_pb2.Job:
        """Submit a job as the protocol spells it; a lost answer makes no second one."""
        return self._loop.run(self._inner.submit_spec(spec, idempotency_key))

    def output(self, job_id: str, folder: str | Path) -> list[Path]:
        """Fetch the files that a script left in its output folder; returns where they are."""
        return self._loop.run(self._inner.output(job_id, folder))

    def fit_model(self, request: FitRequest) -> FitResult:
        """Train what `Model.fit(cluster=...)` asks for and wait for it."""
        return self._loop.run(self._inner.fit_model(request))

    def wait(self, job: job_pb2.Job) -> job_pb2.Job:
        """Follow a job to its end, with a progress bar where there is a terminal."""
        return self._loop.run(self._inner.wait(job))

    def watch(self, job_id: str) -> Iterator[job_pb2.Job | job_pb2.JobProgress]:
        """A job's state at every change, and its progress, until it ends."""
        return self._loop.iterate(self._inner.watch(job_id))

    def job(self, job_id: str) -> job_pb2.Job:
        """One job."""
        return self._loop.run(self._inner.job(job_id))

    def job_tasks(self, job_id: str) -> list[tuple[task_pb2.Task, task_pb2.TaskStatus]]:
        """Where the ranks of a job and its lighthouse are, and how far each is."""
        return self._loop.run(self._inner.job_tasks(job_id))

    def jobs(self) -> list[job_pb2.Job]:
        """All jobs, newest first."""
        return self._loop.run(self._inner.jobs())

    def cancel(self, job_id: str) -> job_pb2.Job:
        """Stop a job; one that has ended stays as it is."""
        return self._loop.run(self._inner.cancel(job_id))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[job_pb2.LogLine]:
        """What a job's ranks printed; with `follow`, until it ends."""
        return self._loop.iterate(self._inner.logs(job_id, follow=follow))

    def publish(
        self,
        model: Model,
        name: str,
        *,
        variants: Sequence[str] = (),
        sample: NDArray[Any] | None = None,
    ) -> storage_pb2.Model:
        """Store a trained model as the next version of `name`, with variants that agree with it."""
        return self._loop.run(self._inner.publish(model, name, variants=variants, sample=sample))

    def deploy(
        self,
        model: Model | str,
        *,
        name: str = "",
        version: int = 0,
        replicas: int | tuple[int, int] = 1,
        canary: int = 0,
        shadow: int = 0,
        stage_s: float | None = None,
        min_agreement: float = 0.0,
        tolerance: float | None = None,
        variant: str = "",
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        options: Mapping[str, int | Sequence[int]] | None = None,
        labels: Mapping[str, str] | None = None,
        hedge_after_s: float = 0.0,
        timeout_s: float = 60.0,
    ) -> Endpoint:
        """Serve a model and wait until every replica answers; see `AsyncCluster.deploy`."""
        inner = self._loop.run(
            self._inner.deploy(
                model,
                name=name,
                version=version,
                replicas=replicas,
                variant=variant,
                before=before,
                after=after,
                options=options,
                canary=canary,
                shadow=shadow,
                stage_s=stage_s,
                min_agreement=min_agreement,
                tolerance=tolerance,
                labels=labels,
                hedge_after_s=hedge_after_s,
                timeout_s=timeout_s,
            )
        )
        return Endpoint(inner, self._loop)

    def undeploy(self, name: str) -> None:
        """Stop serving a deployment."""
        self._loop.run(self._inner.undeploy(name))

    def endpoint(self, name: str) -> Endpoint:
        """Where a deployment answers."""
        return Endpoint(self._inner.endpoint(name), self._loop)

    def queued(self, request_id: str) -> QueuedRequest:
        """A request that was submitted before, by its id."""
        return QueuedRequest(self._inner.queued(request_id), self._loop)

    def webhook_secret(self) -> str:
        """What webhooks of this key's tenant are signed with; see `lepton_ai.webhooks.verify`."""
        return self._loop.run(self._inner.webhook_secret())

    def deployment(self, name: str) -> deployment_pb2.Deployment:
        """How a deployment stands."""
        return self._loop.run(self._inner.deployment(name))

    def deployments(self) -> list[deployment_pb2.Deployment]:
        """All deployments."""
        return self._loop.run(self._inner.deployments())

    def model(self, name: str) -> storage_pb2.Model:
        """A version of a model: ``"name"`` for the newest, ``"name:3"`` or ``"name@alias"``."""
        return self._loop.run(self._inner.model(name))

    def delete_model(self, name: str, version: int) -> None:
        """Forget a version that no alias and no deployment names."""
        self._loop.run(self._inner.delete_model(name, version))

    def keep_models(self, name: str, newest: int) -> int:
        """Keep only the newest versions of a model from now on, and those that something names."""
        return self._loop.run(self._inner.keep_models(name, newest))

    def delete_dataset(self, name: str, version: int) -> None:
        """Forget a version of a dataset; its bytes go once nothing else names them."""
        self._loop.run(self._inner.delete_dataset(name, version))

    def move_alias(
        self, model: str, alias: str, version: int = 0, *, from_version: int | None = None
    ) -> storage_pb2.Alias:
        """Point an alias, such as "champion", at a version. Deployments that follow it roll."""
        return self._loop.run(
            self._inner.move_alias(model, alias, version, from_version=from_version)
        )

    def delete_alias(self, model: str, alias: str) -> None:
        """Forget an alias."""
        self._loop.run(self._inner.delete_alias(model, alias))

    def aliases(self, model: str = "") -> list[storage_pb2.Alias]:
        """Aliases of a model, or of all."""
        return self._loop.run(self._inner.aliases(model))

    def models(self) -> list[storage_pb2.Model]:
        """All versions of all models."""
        return self._loop.run(self._inner.models())

    def datasets(self) -> list[storage_pb2.Dataset]:
        """All versions of all datasets."""
        return self._loop.run(self._inner.datasets())

    def nodes(self) -> list[node_pb2.Node]:
        """The members of the cluster that are alive."""
        return self._loop.run(self._inner.nodes())

    def status(self) -> gateway_pb2.GetStatusResponse:
        """The cluster in numbers."""
        return self._loop.run(self._inner.status())

    def create_key(
        self,
        role: options_pb2.Role,
        *,
        tenant: str = "",
        ttl_s: int = 0,
        may_run_code: bool = False,
    ) -> gateway_pb2.CreateKeyResponse:
        """A new key, shown once; `ttl_s` 0 is 90 days."""
        return self._loop.run(
            self._inner.create_key(role, tenant=tenant, ttl_s=ttl_s, may_run_code=may_run_code)
        )

    def revoke_key(self, key_id: str) -> None:
        """Refuse a key from now on."""
        self._loop.run(self._inner.revoke_key(key_id))


async def _connected(address: str | None, api_key: str | None) -> AsyncCluster:
    return AsyncCluster(address, api_key)  # its channel belongs to the loop it is made in


async def _next(items: AsyncIterator[Any], done: object) -> Any:
    return await anext(items, done)
