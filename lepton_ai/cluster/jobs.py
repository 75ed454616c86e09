"""Jobs of a cluster: submitting them, following them, and taking what they leave behind."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

from lepton_ai.cluster.progress import TrainingBar
from lepton_ai.cluster.sweeping import Sweeper, SweepResult, Trial, arguments_of, with_values
from lepton_ai.errors import (
    AlreadyExistsError,
    CancelledError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from lepton_ai.names import check_name
from lepton_ai.objects import ObjectClient
from lepton_ai.packing import pack, source_files
from lepton_ai.proto.v1 import job_pb2, node_pb2, scheduler_pb2, task_pb2
from lepton_ai.proto.v1.scheduler_pb2_grpc import SchedulerServiceStub
from lepton_ai.rpc import translated_errors
from lepton_ai.sweeps import Plan, Rungs, Space, Value, grid, sampled

if TYPE_CHECKING:
    from lepton_ai.learn.model import Model

__all__ = ["ENDED", "AsyncJobs", "JobOptions", "check_room"]

_log = logging.getLogger("lepton_ai.cluster")
_CALL_S = 30.0
# A gateway or scheduler may be replaced while a job is watched.
_OUTAGE_S = 60.0
_RETRY_S = 0.5
_TRIES = 4
_MAX_SOURCE_BYTES = 256 * 1024**2
_RUN = ("epochs", "batch_size")
ENDED = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)


class _RunOptions(TypedDict, total=False):
    epochs: int
    batch_size: int


class JobOptions(TypedDict, total=False):
    """What every kind of job can be told.

    Attributes:
        name: A label for people.
        workers: The most workers to use; 1 by default.
        min_workers: The fewest to begin with; 1 by default.
        cpus: Processor cores for each worker; 1 by default.
        memory_bytes: Memory for each worker; one that uses more is ended. 0: no limit.
        gpus: Accelerators for each worker.
        priority: From -100 to 100. Where room is short, jobs of a lower one shrink to their fewest
            workers, and then wait until there is room again.
        labels: Only workers with all of these take part, such as ``{"zone": "a"}``.
        time_limit_s: Seconds after which it fails; 0: no limit.
        stall_limit_s: Seconds without a step of any rank after which they are replaced; 0 for 300.
        idempotency_key: Submitting again with the same key answers the job that it made.
    """

    name: str
    workers: int
    min_workers: int
    cpus: float
    memory_bytes: int
    gpus: int
    priority: int
    labels: Mapping[str, str]
    time_limit_s: int
    stall_limit_s: int
    idempotency_key: str


class AsyncJobs:
    """Calls about jobs; a part of `AsyncCluster`."""

    def __init__(self, scheduler: SchedulerServiceStub, objects: ObjectClient) -> None:
        self._scheduler = scheduler
        self._objects = objects

    async def submit(
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
        """Train a compiled model on a stored dataset, without waiting for it.

        Args:
            model: What to train. Weights that it has already are not used.
            dataset: ``"name"`` or ``"name:version"``; its split "train" is used.
            epochs: Passes over the data.
            batch_size: Samples in a step, over all workers together.
            validation_fraction: Last share of the data held out, from 0 to below 1.
            shuffle: Whether each epoch has an order of its own.
            shuffle_window_bytes: A split larger than this is read chunk by chunk, each rank what
                it needs, and mixed within windows of this size; 0 for 256 MiB.
            seed: Makes the run repeatable.
            checkpoint_interval_s: Seconds between checkpoints, from which a job goes on that has
                lost every worker.
            checkpoint_every_steps: Steps between checkpoints, where that comes sooner; 0 for none.
            checkpoints_kept: How many are kept, the newest, until the job ends.
            shards: Processes of each worker that the model is split over (FSDP), for one that does
                not fit an accelerator: ask for as many `gpus`.
            publish_as: Name to publish the trained model under; empty for none.
            options: See `JobOptions`. While workers are lost it goes on with fewer.

        Raises:
            InvalidArgumentError: It can never run; says why.
            NotFoundError: There is no such dataset.
        """
        if shards < 1:
            raise InvalidArgumentError(f"shards is {shards}", hint="use 1 or more")
        train = job_pb2.TrainSpec(
            dataset=dataset,
            model_config=json.dumps(model.to_config()),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            checkpoint_interval_s=checkpoint_interval_s,
            checkpoint_every_steps=checkpoint_every_steps,
            checkpoints_kept=checkpoints_kept,
            shards=shards,
            publish_as=publish_as,
            validation_fraction=validation_fraction,
            keep_order=not shuffle,
            shuffle_window_bytes=shuffle_window_bytes,
        )
        key = options.get("idempotency_key", "")
        return await self.submit_spec(_spec(options, train=train), key)

    async def submit_script(
        self,
        script: str | Path,
        arguments: Sequence[str] = (),
        *,
        folder: str | Path | None = None,
        **options: Unpack[JobOptions],
    ) -> job_pb2.Job:
        """Run a program of your own on workers as torchrun would, without waiting for it.

        Its folder is stored first, but for what ``.leptonignore`` (else ``.gitignore``) names; what
        the cluster has already is not sent. Every worker runs one rank there, with the variables
        that torchrun sets; ``torch.distributed.init_process_group()`` finds the others. What rank
        0 writes to ``$LEPTON_CHECKPOINT_DIR`` is kept, and is there again when all ranks are
        started anew because one was lost. Files in ``$LEPTON_OUTPUT_DIR`` are the result.

        Args:
            script: A Python file, in `folder` or below it.
            arguments: For its command line.
            folder: The working folder; that of the script by default.
            options: See `JobOptions`.

        Raises:
            PermissionDeniedError: The key may not run code.
            DataError: A link in the folder leads out of it.
            ResourceExhaustedError: The folder has too much in it.
            InvalidArgumentError: It can never run; says why.
        """
        root = Path(folder) if folder is not None else Path(script).parent
        entry = await asyncio.to_thread(_entry, Path(script), root)
        work = job_pb2.ScriptSpec(
            source_object=await self._stored_folder(root),
            entry=entry,
            arguments=arguments,
        )
        key = options.get("idempotency_key", "")
        return await self.submit_spec(_spec(options, script=work), key)

    async def submit_evaluation(
        self,
        model: str,
        dataset: str,
        *,
        split: str = "",
        variant: str = "",
        **options: Unpack[JobOptions],
    ) -> job_pb2.Job:
        """Measure a published model on a stored dataset, without waiting for it.

        The ended job's ``result.metrics`` has the loss, without class weights, and the model's own
        metrics over all rows; and where it tells classes apart, for each of them precision, recall,
        F1 and the number of rows, such as ``"recall[3]"``.

        Args:
            model: ``"name"`` for the newest version, ``"name:3"`` or ``"name@alias"``.
            dataset: ``"name"`` or ``"name:version"``, with columns x and y.
            split: Of the dataset; by default "test" where there is one, else "train".
            variant: Measure this variant, published with the model, such as ``"int8"``.
            options: See `JobOptions`. Workers come and go without a row done twice or left out.

        Raises:
            InvalidArgumentError: The model names no loss, or the split has no labels.
            NotFoundError: There is no such model, dataset or split.
        """
        score = job_pb2.ScoreSpec(model=model, dataset=dataset, split=split, variant=variant)
        key = options.get("idempotency_key", "")
        return await self.submit_spec(_spec(options, score=score), key)

    async def submit_prediction(
        self,
        model: str,
        dataset: str,
        output: str,
        *,
        split: str = "",
        variant: str = "",
        **options: Unpack[JobOptions],
    ) -> job_pb2.Job:
        """Store what a published model makes of a stored dataset, without waiting for it.

        The outputs become the next version of the dataset `output`, with a column for each, in the
        order of the input's rows; the ended job's ``result.dataset`` names it. Of the data no more
        is in a worker's memory than the rows that it does at a time.

        Args:
            model: ``"name"`` for the newest version, ``"name:3"`` or ``"name@alias"``.
            dataset: ``"name"`` or ``"name:version"``. A model of one input takes column x, one of
                several takes the columns of their names.
            output: Name of the dataset that holds the outputs.
            split: Of the dataset; by default "test" where there is one, else "train". The outputs
                are a split of the same name.
            variant: Run this variant, published with the model, such as ``"int8"``.
            options: See `JobOptions`. Workers come and go without a row done twice or left out.

        Raises:
            InvalidArgumentError: A name is outside the pattern.
            NotFoundError: There is no such model, dataset or split.
        """
        check_name("dataset", output)
        score = job_pb2.ScoreSpec(
            model=model, dataset=dataset, split=split, output=output, variant=variant
        )
        key = options.get("idempotency_key", "")
        return await self.submit_spec(_spec(options, score=score), key)

    async def submit_spec(self, spec: job_pb2.JobSpec, idempotency_key: str = "") -> job_pb2.Job:
        """Submit a job as the protocol spells it; a lost answer makes no second one."""
        check_room(spec.workers.max, await self._workers())
        request = scheduler_pb2.SubmitJobRequest(
            spec=spec, idempotency_key=idempotency_key or uuid.uuid4().hex
        )
        for left in reversed(range(_TRIES)):
            try:
                async with translated_errors():
                    return (await self._scheduler.SubmitJob(request, timeout=_CALL_S)).job
            except UnavailableError:
                if not left:
                    raise
                await asyncio.sleep(_RETRY_S)
        raise AssertionError

    async def sweep(
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
        """Try parameters and find the best, with a job for each trial; waits for them.

        The jobs hold all that a sweep knows: called again with the same name and arguments, it
        takes up those that it had. Until then nobody submits the jobs that are still to come.

        Args:
            what: A compiled model, or a program of your own. A program is given parameters as
                ``--name value`` and leaves the metric in ``$LEPTON_OUTPUT_DIR/metrics.json``.
            space: What to try, by parameter. A model's are places in its configuration, such as
                ``"objective.optimizer.learning_rate"`` or ``"layers.0.units"``, or ``"epochs"``
                and ``"batch_size"``.
            metric: What is compared: a model's at the end of its last epoch.
            maximize: Whether more is better.
            trials: How many combinations to draw; 0 for every one.
            rungs: Begin all trials with little, and give more to the best only (ASHA). Each rung
                is a run of its own from the beginning.
            parallel: Jobs at a time.
            dataset: What a model learns.
            arguments: Further ones for a program.
            seed: Of the draw, and of models.
            tell: Told each trial that ends.
            options: See `JobOptions`. The name is the sweep's: the same one again takes it up.

        Raises:
            InvalidArgumentError: The space or the metric cannot be; says what can.
            ConflictError: Every trial failed.
        """
        drawn = sampled(space, trials, seed) if trials else grid(space)
        name = check_name("sweep", options.get("name", f"sweep-{uuid.uuid4().hex[:8]}")[:40])

        async def submit(values: dict[str, Value], key: str) -> job_pb2.Job:
            own = options.copy()
            own["name"], own["idempotency_key"] = name, key
            if isinstance(what, str | Path):
                return await self.submit_script(what, [*arguments, *arguments_of(values)], **own)
            model, run = _varied(what, values)
            return await self.submit(model, dataset, seed=seed, **run, **own)

        plan = Plan(drawn, rungs, maximize)
        sweeper = Sweeper(plan, submit, self._until_ended, self._job_keys, metric, name, tell)
        return await sweeper.run(parallel)

    async def _job_keys(self) -> set[str]:
        return {job.idempotency_key for job in await self.jobs()}

    async def _until_ended(self, job_id: str) -> job_pb2.Job:
        async for event in self.watch(job_id):
            if isinstance(event, job_pb2.Job) and event.state in ENDED:
                return event
        raise AssertionError

    async def wait(self, job: job_pb2.Job) -> job_pb2.Job:
        """Follow a job to its end, with a progress bar where there is a terminal.

        Raises:
            ConflictError: It failed; says why.
            CancelledError: It was cancelled.
        """
        with TrainingBar() as bar:
            async for event in self.watch(job.id):
                if isinstance(event, job_pb2.JobProgress):
                    bar.show_progress(event)
                else:
                    bar.show_job(event)
                    job = event
        if job.state == job_pb2.JOB_STATE_FAILED:
            raise ConflictError(
                f"job {job.id} failed: {job.reason}", hint=f"see 'lepton logs {job.id}'"
            )
        if job.state == job_pb2.JOB_STATE_CANCELLED:
            raise CancelledError(f"job {job.id} was cancelled")
        return job

    async def watch(self, job_id: str) -> AsyncIterator[job_pb2.Job | job_pb2.JobProgress]:
        """A job's state at every change, and its progress, until it ends."""
        heard = time.monotonic()
        while True:
            try:
                async for event in self._watched(job_id):
                    heard = time.monotonic()
                    yield event
                    if isinstance(event, job_pb2.Job) and event.state in ENDED:
                        return
            except UnavailableError as error:
                if time.monotonic() - heard > _OUTAGE_S:
                    raise
                _log.info("watching job %s again: %s", job_id, error)
            await asyncio.sleep(_RETRY_S)

    async def job(self, job_id: str) -> job_pb2.Job:
        """One job.

        Raises:
            NotFoundError: There is none with this id.
        """
        async with translated_errors():
            request = scheduler_pb2.GetJobRequest(id=job_id)
            return (await self._scheduler.GetJob(request, timeout=_CALL_S)).job

    async def job_tasks(self, job_id: str) -> list[tuple[task_pb2.Task, task_pb2.TaskStatus]]:
        """Where the ranks of a job and its lighthouse are, and how far each is.

        Raises:
            NotFoundError: There is no job with this id.
        """
        async with translated_errors():
            request = scheduler_pb2.GetJobRequest(id=job_id)
            found = await self._scheduler.GetJob(request, timeout=_CALL_S)
        said = {(s.node_id, s.task_id, s.attempt): s for s in found.statuses}
        nothing = task_pb2.TaskStatus()
        return [(t, said.get((t.node_id, t.id, t.attempt), nothing)) for t in found.tasks]

    async def jobs(self) -> list[job_pb2.Job]:
        """All jobs, newest first."""
        async with translated_errors():
            request = scheduler_pb2.ListJobsRequest()
            return list((await self._scheduler.ListJobs(request, timeout=_CALL_S)).jobs)

    async def cancel(self, job_id: str) -> job_pb2.Job:
        """Stop a job; one that has ended stays as it is."""
        async with translated_errors():
            request = scheduler_pb2.CancelJobRequest(id=job_id)
            return (await self._scheduler.CancelJob(request, timeout=_CALL_S)).job

    async def logs(self, job_id: str, *, follow: bool = False) -> AsyncIterator[job_pb2.LogLine]:
        """What a job's ranks printed; with `follow`, until it ends."""
        request = scheduler_pb2.StreamLogsRequest(id=job_id, follow=follow)
        async with translated_errors():
            async for answer in self._scheduler.StreamLogs(request):
                yield answer.line

    async def output(self, job_id: str, folder: str | Path) -> list[Path]:
        """Fetch the files that a script left in its output folder; returns where they are.

        Raises:
            NotFoundError: There is no such job, or it left none.
            AlreadyExistsError: A file is there already.
        """
        job = await self.job(job_id)
        if not job.result.files:
            raise NotFoundError(
                f"job {job_id} left no files", hint="scripts leave them in $LEPTON_OUTPUT_DIR"
            )
        targets = await asyncio.to_thread(_targets, job.result, Path(folder))
        for file, target in zip(job.result.files, targets, strict=True):
            await self._objects.get_to_file(file.object_id, target)
        return targets

    async def _stored_folder(self, folder: Path) -> str:
        """The object of a working folder."""
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "source.tar"
            files = await asyncio.to_thread(source_files, folder)
            await asyncio.to_thread(pack, folder, files, archive, _MAX_SOURCE_BYTES)
            return (await self._objects.put_file(archive)).id

    async def _workers(self) -> list[node_pb2.Node]:
        async with translated_errors():
            request = scheduler_pb2.ListNodesRequest()
            nodes = (await self._scheduler.ListNodes(request, timeout=_CALL_S)).nodes
        return [node for node in nodes if node.role == node_pb2.NODE_ROLE_WORKER]

    async def _watched(self, job_id: str) -> AsyncIterator[job_pb2.Job | job_pb2.JobProgress]:
        async with translated_errors():
            request = scheduler_pb2.WatchJobRequest(id=job_id)
            async for event in self._scheduler.WatchJob(request):
                yield event.job if event.HasField("job") else event.progress


def check_room(workers: int, nodes: Sequence[node_pb2.Node]) -> None:
    """Refuse more workers than there will ever be: the scheduler looks at the minimum alone."""
    if workers < 1:
        raise InvalidArgumentError(f"workers is {workers}", hint="use 1 or more")
    capacity = sum(int(node.capacity.cpus) for node in nodes)
    if nodes and workers > capacity:
        raise InvalidArgumentError(
            f"{workers} workers never fit", hint=f"this cluster has room for {capacity}"
        )


def _spec(
    options: JobOptions,
    *,
    train: job_pb2.TrainSpec | None = None,
    script: job_pb2.ScriptSpec | None = None,
    score: job_pb2.ScoreSpec | None = None,
) -> job_pb2.JobSpec:
    unknown = options.keys() - JobOptions.__annotations__.keys()
    if unknown:
        raise InvalidArgumentError(
            f"this kind of job has no option {min(unknown)!r}",
            hint=f"it has {', '.join(JobOptions.__annotations__)}",
        )
    workers = options.get("workers", 1)
    return job_pb2.JobSpec(
        name=options.get("name", ""),
        workers={"min": options.get("min_workers", 1), "max": workers},
        resources={
            "cpus": options.get("cpus", 1.0),
            "memory_bytes": options.get("memory_bytes", 0),
            "gpus": options.get("gpus", 0),
        },
        priority=options.get("priority", 0),
        labels=options.get("labels", {}),
        time_limit_s=options.get("time_limit_s", 0),
        stall_limit_s=options.get("stall_limit_s", 0),
        train=train,
        script=script,
        score=score,
    )


def _varied(model: Model, values: Mapping[str, Value]) -> tuple[Model, _RunOptions]:
    """A model with other values, and those that are said when it is submitted."""
    from lepton_ai.learn.config import ModelConfig
    from lepton_ai.learn.model import Model

    form = with_values(
        model.to_config(), {place: v for place, v in values.items() if place not in _RUN}
    )
    run = {name: int(values[name]) for name in _RUN if name in values}
    return Model(ModelConfig.from_dict(form)), cast("_RunOptions", run)


def _entry(script: Path, folder: Path) -> str:
    """A script's path in its folder."""
    if not script.is_file():
        raise NotFoundError(f"there is no file {script}")
    if not script.resolve().is_relative_to(folder.resolve()):
        raise InvalidArgumentError(f"{script} is not in {folder}")
    return script.resolve().relative_to(folder.resolve()).as_posix()


def _targets(result: job_pb2.JobResult, folder: Path) -> list[Path]:
    """Where a job's files go, ready to be written; a program chose their names."""
    root = folder.resolve()
    targets = [(root / file.path).resolve() for file in result.files]
    for target in targets:
        if not target.is_relative_to(root):
            raise InvalidArgumentError(f"the job has a file that would be {target}")
        if target.exists():
            raise AlreadyExistsError(f"{target} exists", hint="choose another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
    return targets
