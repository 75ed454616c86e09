"""Evaluations and batch predictions: how an agent runs one rank of them."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_ai.errors import InvalidArgumentError, LeptonError, NotFoundError
from lepton_ai.proto.v1 import job_pb2, storage_pb2, task_pb2
from lepton_runtime.state import State
from lepton_worker.child import Child
from lepton_worker.deliveries import Deliveries
from lepton_worker.pace import Pace
from lepton_worker.patience import patiently
from lepton_worker.ranks import Ranks
from lepton_worker.shards import Shards
from lepton_worker.storage import WorkerStorage, writer

__all__ = ["ScoreRunner"]

# One is computed while the data of the next comes and what came of the last is stored.
_AT_ONCE = 2
# Ranks begin at places that lie far apart, however many there are.
_GOLDEN = 0.618034


@dataclass
class _Run:
    """One rank that runs."""

    task: task_pb2.Task
    child: Child
    split: storage_pb2.Split
    shards: Shards
    count: int
    pace: Pace = field(default_factory=Pace)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    began: float = field(default_factory=time.monotonic)
    done_before: int | None = None
    asked: dict[int, asyncio.Future[dict[str, Any]]] = field(
        default_factory=dict[int, "asyncio.Future[dict[str, Any]]"]
    )

    async def ask(self, op: str, number: int, **fields: Any) -> dict[str, Any]:
        """What the process answers; one question a number at a time."""
        answer = self.asked[number] = asyncio.get_running_loop().create_future()
        await self.child.tell({"op": op, "number": number, **fields})
        return await answer


class ScoreRunner:
    """Runs ranks that score.

    Args:
        state: Has the records of shards.
        storage: Has models and data, and takes results.
        ranks: Runs their processes.
        folder: Below it each has a folder of its own.
    """

    def __init__(self, state: State, storage: WorkerStorage, ranks: Ranks, folder: Path) -> None:
        self._state = state
        self._storage = storage
        self._ranks = ranks
        self._folder = folder

    async def run(self, task: task_pb2.Task) -> None:
        """Run a rank to its end; cancel to end it sooner.

        Raises:
            NotFoundError: The model or the dataset is not there any more.
        """
        spec, folder = task.score.spec, self._folder / f"{task.id}-{task.attempt}"
        name, _, version = spec.model.partition(":")
        model = await self._storage.model(name, int(version))
        split = await self._storage.split(spec.dataset, spec.split)
        work = {
            "work": "score",
            "model": str(await self._storage.fetch(_onnx_object(model, spec.variant))),
            "config": "" if spec.output else model.model_config,
            "rows": split.rows,
            "size_bytes": await self._storage.size_bytes(split.object_id),
            "shard_rows": spec.shard_rows,
            "attempt": f"{task.id}-{task.attempt}-{task.placed_revision}",
            "folder": str(folder),
            "threads": max(1, int(task.resources.cpus)),
        }
        try:
            await self._ranks.run(task, work, lambda child: self._follow(task, child, split))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _follow(self, task: task_pb2.Task, child: Child, split: storage_pb2.Split) -> bool:
        """Have shards done and the result put together; False when the process died before."""
        count = -(-split.rows // task.score.spec.shard_rows)
        start = int(task.score.rank * _GOLDEN % 1 * count)
        run = _Run(task, child, split, Shards(self._state, task, count, start), count)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(run.shards.follow())
            pacing = tasks.create_task(self._ranks.watch_pace(task, run.pace))
            hearing = tasks.create_task(self._hear(run, tasks))
            doing = tasks.create_task(self._do(run))
            await asyncio.wait({hearing, doing}, return_when=asyncio.FIRST_COMPLETED)
            told = doing.done() or hearing.result()
            for each in (following, pacing, hearing, doing):
                each.cancel()
        return told

    async def _hear(self, run: _Run, tasks: asyncio.TaskGroup) -> bool:
        """Act on what the process tells; whether it told its end."""
        deliveries = Deliveries(self._storage, run.split.object_id, run.child)
        async for event in run.child.events():
            match event["event"]:
                case "ready":
                    await self._ranks.say(run.task, task_pb2.TASK_STATE_RUNNING)
                    run.ready.set()
                case "batch":
                    run.pace.step()
                case "chunks_wanted":
                    tasks.create_task(deliveries.bring(event["numbers"]))
                case "done":
                    run.asked.pop(event["number"]).set_result(event)
                case "failed":
                    await self._ranks.failed(run.task, event["error"], event["user_error"])
                    return True
                case _:
                    pass
        return False

    async def _do(self, run: _Run) -> None:
        """Everything that this rank has to do, from its first shard to the job's result."""
        try:
            await run.ready.wait()
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_AT_ONCE):
                    tasks.create_task(self._work_off(run))
            await self._ranks.say(run.task, task_pb2.TASK_STATE_TRAINED)
            await self._ranks.until_publishing(run.task)
            await self._ranks.succeeded(run.task, await self._result(run))
        except* LeptonError as group:
            error = _first(group)
            user_error = isinstance(error, InvalidArgumentError | NotFoundError)
            await self._ranks.failed(run.task, str(error), user_error)

    async def _work_off(self, run: _Run) -> None:
        """Do one shard after the other until all are done."""
        while (number := await run.shards.take()) is not None:
            if not run.asked:
                run.pace.begin()
            piece = Path((await run.ask("shard", number))["path"])
            if not run.asked:
                run.pace.end()  # who has nothing to do does not stall
            object_id = await patiently(lambda piece=piece: self._storage.store(piece))
            await asyncio.to_thread(piece.unlink)
            if await run.shards.finish(number, object_id):
                await self._tell_progress(run)
            else:
                await self._storage.delete(object_id)

    async def _result(self, run: _Run) -> job_pb2.JobResult:
        """Put the pieces together, in their order, and store what they make."""
        for number, object_id in enumerate(run.shards.results()):
            piece = await patiently(lambda wanted=object_id: self._storage.fetch(wanted))
            await run.ask("merge", number, path=str(piece))
        made = await run.ask("result", run.count)
        if "metrics" in made:
            return job_pb2.JobResult(metrics=made["metrics"])
        path = Path(made["path"])
        object_id = await patiently(lambda: self._storage.store(path))
        dataset = await patiently(
            lambda: self._storage.add_dataset(_dataset(run, made["columns"], object_id))
        )
        return job_pb2.JobResult(dataset=f"{dataset.name}:{dataset.version}")

    async def _tell_progress(self, run: _Run) -> None:
        spec, done = run.task.score.spec, run.shards.done
        if run.done_before is None:
            run.done_before = done - 1
        rows = (done - run.done_before) * spec.shard_rows
        progress = job_pb2.JobProgress(
            job_id=run.task.score.job_id,
            step=done,
            total_steps=run.count,
            participants=max(1, run.shards.busy_ranks),
            samples_per_s=rows / max(1e-3, time.monotonic() - run.began),
        )
        progress.at.GetCurrentTime()
        await self._ranks.progress(progress)


def _onnx_object(model: storage_pb2.Model, variant: str) -> str:
    found = {each.kind: each.onnx_object for each in model.variants}
    return found[variant] if variant else model.onnx_object


def _dataset(
    run: _Run, columns: list[dict[str, Any]], object_id: str
) -> storage_pb2.CreateDatasetRequest:
    """Outputs as a dataset that tells what they were made from."""
    task, spec = run.task, run.task.score.spec
    made = storage_pb2.Split(name=spec.split, object_id=object_id, rows=run.split.rows)
    for column in columns:
        made.columns.add(**column)
    origin = storage_pb2.DatasetOrigin(
        job_id=task.score.job_id,
        model=spec.model,
        variant=spec.variant,
        dataset=spec.dataset,
        dataset_object=run.split.object_id,
    )
    return storage_pb2.CreateDatasetRequest(
        name=spec.output, splits=[made], origin=origin, writer=writer(task)
    )


def _first(group: BaseExceptionGroup[LeptonError]) -> LeptonError:
    """The first error in a group of groups."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
