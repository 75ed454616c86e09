"""The cluster, for asyncio: every call the SDK makes."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

from lepton_ai.cluster.arrays import Splits, columns_of, content_name
from lepton_ai.cluster.endpoint import AsyncEndpoint
from lepton_ai.cluster.inference import InferenceClient
from lepton_ai.cluster.jobs import AsyncJobs, check_room
from lepton_ai.cluster.profile import Profile
from lepton_ai.cluster.progress import TransferBar
from lepton_ai.cluster.queued import AsyncQueuedRequest
from lepton_ai.cluster.serving import ensemble_step, serving_options
from lepton_ai.cluster.storage import AsyncStorage
from lepton_ai.cluster.workers import AsyncWorkers
from lepton_ai.data_plane import DataPlane
from lepton_ai.errors import (
    ConflictError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
)
from lepton_ai.http import HttpClient
from lepton_ai.learn.history import History
from lepton_ai.learn.remote import FitRequest, FitResult
from lepton_ai.names import check_name
from lepton_ai.objects import ObjectClient
from lepton_ai.proto.v1 import (
    deployment_pb2,
    gateway_pb2,
    gateway_pb2_grpc,
    job_pb2,
    node_pb2,
    options_pb2,
    scheduler_pb2,
    scheduler_pb2_grpc,
    storage_pb2,
    storage_pb2_grpc,
)
from lepton_ai.rpc import open_channel, translated_errors
from lepton_ai.versions import library_versions

if TYPE_CHECKING:
    from lepton_ai.learn.model import Model

__all__ = ["AsyncCluster"]

_log = logging.getLogger("lepton_ai.cluster")
_CALL_S = 30.0
_POLL_S = 0.1
_UP = (deployment_pb2.DEPLOYMENT_STATE_READY, deployment_pb2.DEPLOYMENT_STATE_ASLEEP)


class AsyncCluster(AsyncJobs):
    """A cluster, through its gateway. Close it when done, or use it as a context manager.

    Args:
        address: ``host:port`` of the gateway; by default ``LEPTON_ADDRESS``, else what
            ``lepton up`` wrote.
        api_key: A key; by default ``LEPTON_API_KEY``, else what ``lepton up`` wrote.

    Raises:
        NotFoundError: No cluster is known.
    """

    def __init__(self, address: str | None = None, api_key: str | None = None) -> None:
        profile = Profile.find(address, api_key)
        self.address = profile.address
        self._channel = open_channel(profile.address, profile.api_key, profile.channel_credentials)
        self._http = HttpClient(profile.address, profile.api_key, profile.tls)
        self._inference = InferenceClient(self._http, self._channel)
        self._storage = storage_pb2_grpc.StorageServiceStub(self._channel)
        self._gateway = gateway_pb2_grpc.GatewayServiceStub(self._channel)
        # Behind TLS nodes let in only each other: the gateway carries for everyone else.
        direct = profile.tls is None
        self._data = DataPlane([profile.address], profile.api_key, profile.tls, direct=direct)
        scheduler = scheduler_pb2_grpc.SchedulerServiceStub(self._channel)
        super().__init__(scheduler, ObjectClient(self._data))
        self.storage = AsyncStorage(self._storage)
        self.workers = AsyncWorkers(scheduler)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._data.close()
        await self._channel.close()

    async def upload_files(
        self,
        name: str,
        path: str | Path,
        *,
        label: str = "",
        image_size: tuple[int, int] | None = None,
        replication: int = 0,
    ) -> storage_pb2.Dataset:
        """Store files as the next version of a dataset: a table, arrays, images, an archive.

        Args:
            name: Of the dataset.
            path: What to store; `lepton_ai.datasets.splits_from` tells which files can be.
            label: The column of a table to predict.
            image_size: Height and width to scale images to, in pixels.
            replication: Copies wanted, 1 to 5; 0 for the cluster's default.

        Raises:
            NotFoundError: There is no such file or column.
            DataError: It cannot be a dataset; says why. Nothing is stored.
            InvalidArgumentError: A name is outside the pattern.
        """
        from lepton_ai.datasets.files import splits_from

        check_name("dataset", name)
        splits = await asyncio.to_thread(splits_from, path, label=label, image_size=image_size)
        return await self.upload(name, splits, replication=replication)

    async def upload(
        self, name: str, splits: Splits, *, replication: int = 0
    ) -> storage_pb2.Dataset:
        """Store arrays as the next version of a dataset, with a progress bar.

        Args:
            name: Of the dataset.
            splits: By split name, such as ``"train"``: an array, a pair ``(x, y)``, or a mapping
                of column names to arrays; first axis the rows.
            replication: Copies wanted, 1 to 5; 0 for the cluster's default.

        Raises:
            DataError: Lengths differ, there are no rows, NaN or infinity; nothing is stored.
            InvalidArgumentError: A name is outside the pattern.
        """
        check_name("dataset", name)
        if not splits:
            raise InvalidArgumentError("there are no splits", hint='give {"train": (x, y)}')
        columns = {check_name("split", key): columns_of(key, splits[key]) for key in splits}
        with TransferBar() as bar:
            stored = [
                await self._objects.put_split(
                    key,
                    columns[key],
                    replication=replication,
                    progress=bar.follow(f"storing {key}"),
                )
                for key in columns
            ]
        request = storage_pb2.CreateDatasetRequest(name=name, splits=stored)
        async with translated_errors():
            return (await self._storage.CreateDataset(request, timeout=_CALL_S)).dataset

    async def fit_model(self, request: FitRequest) -> FitResult:
        """Train what `Model.fit(cluster=...)` asks for and wait for it, with a progress bar.

        Raises:
            ConflictError: The job failed; says why.
            CancelledError: It was cancelled.
        """
        nodes = await self._workers()
        room = request.room
        workers = max(1, len(nodes)) if room.workers is None else room.workers
        check_room(workers, nodes)
        spec = job_pb2.JobSpec(
            workers={"min": 1, "max": workers},
            resources={"gpus": room.gpus},
            train=await self._train_spec(request),
        )
        job = await self.wait(await self.submit_spec(spec))
        weights = await self._objects.get_bytes(job.result.weights_object)
        return FitResult(bytes(weights), History.from_dict(json.loads(job.result.history)))

    async def publish(
        self,
        model: Model,
        name: str,
        *,
        variants: Sequence[str] = (),
        sample: NDArray[Any] | None = None,
    ) -> storage_pb2.Model:
        """Store a trained model as the next version of `name`.

        Args:
            model: What to publish.
            name: Of the published model.
            variants: Forms of it to publish beside it, ``"int8"`` or ``"fp16"``; a deployment
                chooses one.
            sample: Rows like those it will be asked for. Each variant has to agree with the model
                on 99 of 100.

        Raises:
            NotFittedError: It has no weights.
            InvalidArgumentError: A variant does not exist or does not agree; nothing is published.
        """
        check_name("model", name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            await asyncio.to_thread(model.export_onnx, path)
            content = await asyncio.to_thread(path.read_bytes)
        made = [await self._store_variant(content, kind, sample) for kind in variants]
        onnx = await self._objects.put_bytes(content)
        weights = await self._objects.put_bytes(model.to_bytes())
        form = storage_pb2.Model(
            name=name,
            onnx_object=onnx.id,
            weights_object=weights.id,
            model_config=json.dumps(model.to_config()),
            libraries=library_versions(),
            variants=made,
        )
        async with translated_errors():
            request = storage_pb2.PublishModelRequest(model=form)
            return (await self._storage.PublishModel(request, timeout=_CALL_S)).model

    async def _store_variant(
        self, content: bytes, kind: str, sample: NDArray[Any] | None
    ) -> storage_pb2.ModelVariant:
        from lepton_ai.learn.onnx_variants import make_variant

        if sample is None:
            raise InvalidArgumentError("variants need a sample", hint="give a hundred rows or more")
        variant = await asyncio.to_thread(make_variant, content, kind, sample)
        stored = await self._objects.put_bytes(variant.content)
        return storage_pb2.ModelVariant(
            kind=kind, onnx_object=stored.id, agreement=variant.agreement
        )

    async def deploy(
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
    ) -> AsyncEndpoint:
        """Serve a model and wait until every replica answers.

        Another version than the one that serves takes over by stages: it gets 1 %, 10 %, 50 % and
        all of the requests, and is rolled back where it fails more often or takes longer. Where
        nobody asks it takes over at once.

        Args:
            model: A published model's name; ``"name@alias"`` to follow an alias wherever it
                moves; or a trained model, which is published first.
            name: Of the endpoint; by default the model's name, or its kind, such as "cnn".
            version: A published version; 0 for the newest.
            replicas: Copies, each on a worker of its own; or the fewest and the most, between which
                their number follows the load. With 0 as the fewest the model sleeps while nobody
                asks, and the next request wakes it.
            canary: Percent of the requests at which another version stays until the next `deploy`;
                0 for no such stop.
            shadow: Percent of the requests that another version is asked too until the next
                `deploy`, for its answers to be compared: no client gets them. 0 for none.
            stage_s: Seconds that each stage lasts, 10 by default; 0 switches without stages.
            min_agreement: Of the answers, the share (of 1) that has to be that of the version
                before. At least 100 rows are compared before a client is answered by the new one,
                however long that takes. 0 to have agreement told, but not judged.
            tolerance: By how much fractions that agree may differ: by this up to 1, by this part of
                them beyond. 0.01 by default. Of probabilities the likeliest class has to be the
                same; whole numbers, texts and truth values have to be equal.
            variant: Serve this variant, published with the model, such as ``"int8"``.
            before: Published models that prepare its inputs, in order, on the same node:
                ``"name"`` or ``"name:3"``. Each takes what the one before gave, by name, or where
                there is one tensor only.
            after: Models that make something of its outputs.
            options: How replicas serve, such as ``{"max_queue_delay_us": 500}``: the fields of
                `ServingOptions`.
            labels: Only workers with all of these take replicas, such as ``{"zone": "a"}``.
            hedge_after_s: Seconds after which a request without an answer is sent to another
                replica too, and the first answer counts; 0 for never.
            timeout_s: How long to wait, in seconds.

        Raises:
            InvalidArgumentError: An option does not exist.
            NotFoundError: No such model or version.
            ConflictError: It cannot be served, or was rolled back; says why.
            DeadlineExceededError: It is not ready in time; it goes on becoming so.
        """
        if not isinstance(model, str):
            published = await self.publish(model, name or model.config.kind.lower())
            model, version = published.name, published.version
        model, _, alias = model.partition("@")
        spec = deployment_pb2.DeploymentSpec(
            name=name or model, model=model, version=version, alias=alias
        )
        spec.variant = variant
        spec.hedge_after_s = hedge_after_s
        spec.labels.update(labels or {})
        spec.before.extend(ensemble_step(text) for text in before)
        spec.after.extend(ensemble_step(text) for text in after)
        if options:
            spec.options.CopyFrom(serving_options(options))
        if isinstance(replicas, int):
            spec.replicas = replicas
        else:
            spec.scale.min_replicas, spec.scale.max_replicas = replicas
        rollout = spec.rollout
        rollout.hold_percent, rollout.shadow_percent = canary, shadow
        rollout.min_agreement = min_agreement
        if stage_s is not None:
            rollout.stage_s = stage_s
        if tolerance is not None:
            rollout.tolerance = tolerance
        async with translated_errors():
            request = scheduler_pb2.ApplyDeploymentRequest(spec=spec)
            await self._scheduler.ApplyDeployment(request, timeout=_CALL_S)
        await self._until_ready(spec.name, timeout_s)
        return self.endpoint(spec.name)

    async def undeploy(self, name: str) -> None:
        """Stop serving a deployment.

        Raises:
            NotFoundError: There is none of this name.
        """
        async with translated_errors():
            request = scheduler_pb2.DeleteDeploymentRequest(name=name)
            await self._scheduler.DeleteDeployment(request, timeout=_CALL_S)

    def endpoint(self, name: str) -> AsyncEndpoint:
        """Where a deployment answers."""
        return AsyncEndpoint(check_name("deployment", name), self._inference)

    def queued(self, request_id: str) -> AsyncQueuedRequest:
        """A request that was submitted before, by its id.

        Raises:
            InvalidArgumentError: That is no id of a request.
        """
        if not re.fullmatch(r"[0-9a-f]{32}", request_id):
            raise InvalidArgumentError(
                f"{request_id!r} is no id of a request", hint="it is 32 hexadecimal digits"
            )
        return AsyncQueuedRequest(request_id, self._http)

    async def webhook_secret(self) -> str:
        """What webhooks of this key's tenant are signed with; see `lepton_ai.webhooks.verify`.

        Raises:
            PermissionDeniedError: The key is no developer's.
        """
        answer = await self._http.request("GET", "/v2/requests/webhook-secret", timeout_s=_CALL_S)
        return json.loads(answer.body)["secret"]

    async def deployment(self, name: str) -> deployment_pb2.Deployment:
        """How a deployment stands.

        Raises:
            NotFoundError: There is none of this name.
        """
        async with translated_errors():
            request = scheduler_pb2.GetDeploymentRequest(name=name)
            return (await self._scheduler.GetDeployment(request, timeout=_CALL_S)).deployment

    async def deployments(self) -> list[deployment_pb2.Deployment]:
        """All deployments."""
        async with translated_errors():
            request = scheduler_pb2.ListDeploymentsRequest()
            answer = await self._scheduler.ListDeployments(request, timeout=_CALL_S)
            return list(answer.deployments)

    async def model(self, name: str) -> storage_pb2.Model:
        """A version of a model: ``"name"`` for the newest, ``"name:3"`` or ``"name@alias"``.

        Raises:
            NotFoundError: There is no such model, version or alias.
        """
        name, _, alias = name.partition("@")
        name, _, version = name.partition(":")
        if version and not version.isdigit():
            raise InvalidArgumentError(
                f"version {version!r} is no number", hint="such as 'mnist:3'"
            )
        request = storage_pb2.GetModelRequest(name=name, version=int(version or 0))
        if alias:
            request.version = await self._alias_version(name, alias)
        async with translated_errors():
            return (await self._storage.GetModel(request, timeout=_CALL_S)).model

    async def delete_model(self, name: str, version: int) -> None:
        """Forget a version that no alias and no deployment names.

        Raises:
            NotFoundError: There is no such version.
            ConflictError: It is in use; says by what.
        """
        async with translated_errors():
            request = storage_pb2.DeleteModelRequest(name=name, version=version)
            await self._storage.DeleteModel(request, timeout=_CALL_S)

    async def keep_models(self, name: str, newest: int) -> int:
        """Keep only the newest versions of a model from now on, and those that something names.

        Args:
            name: Of the model.
            newest: How many; 0 for all.

        Returns:
            How many versions that removed.
        """
        async with translated_errors():
            request = storage_pb2.SetRetentionRequest(model=name, newest=newest)
            return (await self._storage.SetRetention(request, timeout=_CALL_S)).removed

    async def delete_dataset(self, name: str, version: int) -> None:
        """Forget a version of a dataset; its bytes go once nothing else names them.

        Raises:
            NotFoundError: There is no such version.
            ConflictError: A job that has not ended is trained on it.
        """
        async with translated_errors():
            request = storage_pb2.DeleteDatasetRequest(name=name, version=version)
            await self._storage.DeleteDataset(request, timeout=_CALL_S)

    async def move_alias(
        self, model: str, alias: str, version: int = 0, *, from_version: int | None = None
    ) -> storage_pb2.Alias:
        """Point an alias, such as "champion", at a version. Deployments that follow it roll.

        Args:
            model: The model's name.
            alias: The alias's name.
            version: A published version; 0 for the newest.
            from_version: Move only if it is there now; 0: only if there is no such alias yet.

        Raises:
            NotFoundError: There is no such model or version.
            ConflictError: It is not where `from_version` says.
        """
        request = storage_pb2.MoveAliasRequest(
            model=model, alias=alias, version=version, from_version=from_version
        )
        async with translated_errors():
            return (await self._storage.MoveAlias(request, timeout=_CALL_S)).alias

    async def delete_alias(self, model: str, alias: str) -> None:
        """Forget an alias.

        Raises:
            NotFoundError: There is none of this name.
            ConflictError: A deployment follows it.
        """
        async with translated_errors():
            request = storage_pb2.DeleteAliasRequest(model=model, alias=alias)
            await self._storage.DeleteAlias(request, timeout=_CALL_S)

    async def aliases(self, model: str = "") -> list[storage_pb2.Alias]:
        """Aliases of a model, or of all."""
        async with translated_errors():
            request = storage_pb2.ListAliasesRequest(model=model)
            return list((await self._storage.ListAliases(request, timeout=_CALL_S)).aliases)

    async def models(self) -> list[storage_pb2.Model]:
        """All versions of all models."""
        async with translated_errors():
            request = storage_pb2.ListModelsRequest()
            return list((await self._storage.ListModels(request, timeout=_CALL_S)).models)

    async def datasets(self) -> list[storage_pb2.Dataset]:
        """All versions of all datasets."""
        async with translated_errors():
            request = storage_pb2.ListDatasetsRequest()
            return list((await self._storage.ListDatasets(request, timeout=_CALL_S)).datasets)

    async def nodes(self) -> list[node_pb2.Node]:
        """The members of the cluster that are alive."""
        async with translated_errors():
            request = scheduler_pb2.ListNodesRequest()
            return list((await self._scheduler.ListNodes(request, timeout=_CALL_S)).nodes)

    async def status(self) -> gateway_pb2.GetStatusResponse:
        """The cluster in numbers."""
        async with translated_errors():
            return await self._gateway.GetStatus(gateway_pb2.GetStatusRequest(), timeout=_CALL_S)

    async def create_key(
        self,
        role: options_pb2.Role,
        *,
        tenant: str = "",
        ttl_s: int = 0,
        may_run_code: bool = False,
    ) -> gateway_pb2.CreateKeyResponse:
        """A new key, shown once; `ttl_s` 0 is 90 days. Programs run with `may_run_code`."""
        async with translated_errors():
            request = gateway_pb2.CreateKeyRequest(
                tenant=tenant, role=role, ttl_s=ttl_s, may_run_code=may_run_code
            )
            return await self._gateway.CreateKey(request, timeout=_CALL_S)

    async def revoke_key(self, key_id: str) -> None:
        """Refuse a key from now on."""
        async with translated_errors():
            await self._gateway.RevokeKey(gateway_pb2.RevokeKeyRequest(id=key_id), timeout=_CALL_S)

    async def _train_spec(self, request: FitRequest) -> job_pb2.TrainSpec:
        options = request.options
        dataset, validation = await self._stored(request)
        train = job_pb2.TrainSpec(
            dataset=dataset,
            validation_split=validation,
            model_config=json.dumps(request.config),
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            validation_fraction=options.validation_split,
            keep_order=not options.shuffle,
            shards=request.room.shards,
        )
        if request.weights is not None:
            train.initial_weights_object = (await self._objects.put_bytes(request.weights)).id
        return train

    async def _stored(self, request: FitRequest) -> tuple[str, str]:
        """The dataset of a request, and the split it validates on; arrays are uploaded first."""
        x, y = request.training
        if isinstance(x, str):
            return x, str(request.validation or "")
        splits: dict[str, Any] = {"train": (x, y)}
        if request.validation is not None:
            splits["validation"] = request.validation
        columns = {key: columns_of(key, pair) for key, pair in splits.items()}
        name = await asyncio.to_thread(content_name, columns)
        try:
            await self.dataset(name)
        except NotFoundError:
            await self.upload(name, columns)
        return name, "validation" if "validation" in splits else ""

    async def _alias_version(self, model: str, alias: str) -> int:
        found = {each.name: each.version for each in await self.aliases(model)}
        if alias not in found:
            known = ", ".join(sorted(found)) or "none"
            raise NotFoundError(f"model {model!r} has no alias {alias!r}", hint=f"it has: {known}")
        return found[alias]

    async def dataset(self, name: str, version: int = 0) -> storage_pb2.Dataset:
        """A dataset's version, or the newest for 0.

        Raises:
            NotFoundError: There is no such dataset or version.
        """
        async with translated_errors():
            request = storage_pb2.GetDatasetRequest(name=name, version=version)
            return (await self._storage.GetDataset(request, timeout=_CALL_S)).dataset

    async def rows(
        self, dataset: str, start: int = 0, stop: int | None = None, *, split: str = "train"
    ) -> dict[str, NDArray[Any]]:
        """Rows of a stored dataset, by column; only these are fetched.

        Args:
            dataset: ``"name"`` for the newest version, or ``"name:3"``.
            start: The first row.
            stop: The first row that is left out; None for all to the end.
            split: Of the dataset.

        Raises:
            NotFoundError: There is no such dataset, version or split.
            InvalidArgumentError: There are no such rows.
        """
        name, _, version = dataset.partition(":")
        if version and not version.isdigit():
            raise InvalidArgumentError(f"version {version!r} is no number", hint="such as 'd:3'")
        splits = {each.name: each for each in (await self.dataset(name, int(version or 0))).splits}
        if split not in splits:
            known = ", ".join(sorted(splits))
            raise NotFoundError(f"dataset {dataset!r} has no split {split!r}", hint=known)
        found = splits[split]
        return await self._objects.get_rows(found, start, found.rows if stop is None else stop)

    async def _until_ready(self, name: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    # The gateway hears of a replica a moment after the scheduler.
                    up = _answers(await self.deployment(name))
                    if up and await self.endpoint(name).is_ready():
                        return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise DeadlineExceededError(
                f"{name!r} is not ready after {timeout_s:g} s", hint="see 'lepton deployments'"
            ) from None


def _answers(deployment: deployment_pb2.Deployment) -> bool:
    """Whether every replica answers, or would when asked.

    Raises:
        ConflictError: None ever will.
    """
    if deployment.state == deployment_pb2.DEPLOYMENT_STATE_FAILED:
        raise ConflictError(f"{deployment.spec.name!r} cannot be served: {deployment.reason}")
    if deployment.state == deployment_pb2.DEPLOYMENT_STATE_ROLLED_BACK:
        raise ConflictError(deployment.reason)
    return deployment.state in _UP
