"""The process of one rank: run within its limits, heard, and told of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog

from lepton_ai.proto.v1 import job_pb2, task_pb2
from lepton_worker.child import Child
from lepton_worker.devices import Devices
from lepton_worker.memory import killed_over, out_of_memory
from lepton_worker.news import News
from lepton_worker.pace import Pace
from lepton_worker.trainers import Trainers

__all__ = ["Ranks", "Statuses", "rank_of"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.ranks")
_LOOK_S = 0.5


class Statuses(Protocol):
    """Hears how far tasks are."""

    async def write(self, task: task_pb2.Task, status: task_pb2.TaskStatus) -> None:
        """Record `status` as that of `task`'s attempt."""
        ...


class Ranks:
    """Runs ranks, each in a trainer process of its own.

    Args:
        news: Told what they print, and how far they are.
        statuses: Hears how far they are.
        trainers: Their processes.
        devices: This node's accelerators.
        pids: Told the process of each task.
    """

    def __init__(
        self,
        news: News,
        statuses: Statuses,
        trainers: Trainers,
        devices: Devices,
        pids: dict[str, int],
    ) -> None:
        self._news = news
        self._statuses = statuses
        self._trainers = trainers
        self._devices = devices
        self._pids = pids
        self._published: dict[str, asyncio.Event] = {}

    def publish(self, task: task_pb2.Task) -> None:
        """Let a rank that has nothing left to do publish."""
        self._published.setdefault(task.id, asyncio.Event()).set()

    async def until_publishing(self, task: task_pb2.Task) -> None:
        """Wait until a rank may publish."""
        await self._published.setdefault(task.id, asyncio.Event()).wait()

    async def run(
        self,
        task: task_pb2.Task,
        work: Mapping[str, Any],
        follow: Callable[[Child], Awaitable[bool]],
    ) -> None:
        """Run a rank to its end; cancel to end it sooner.

        Args:
            task: What it is.
            work: What its process is told to do.
            follow: Hears the process; False when that died before its end.
        """
        if rank_of(task).publish:
            self.publish(task)
        limit = task.resources.memory_bytes
        try:
            async with (
                self._devices.taken(task.resources.gpus) as gpus,
                self._trainers.one() as child,
                asyncio.TaskGroup() as tasks,
            ):
                self._pids[task.id] = child.pid
                tasks.create_task(self._forward(task, child))
                over = tasks.create_task(killed_over(child.pid, limit))
                await child.tell({**work, "gpus": gpus})
                ended = await follow(child)
                await child.kill()
                over.cancel()
            if not ended and not over.cancelled():
                reason = out_of_memory(rank_of(task).rank, over.result(), limit)
                await self.failed(task, reason, user_error=True)
            elif not ended:
                await self.failed(task, "the trainer died", user_error=False)
        finally:
            self._published.pop(task.id, None)
            self._pids.pop(task.id, None)

    async def watch_pace(self, task: task_pb2.Task, pace: Pace) -> None:
        """Say that a rank stalls, and that it goes on; until cancelled."""
        stalled = False
        while True:
            await asyncio.sleep(_LOOK_S)
            if bool(pace.stalled_s) == stalled:
                continue
            stalled = not stalled
            if stalled:
                reason = f"no step for {pace.stalled_s:.0f} s; its process lives"
                _log.warning("rank stalls", task=task.id, reason=reason)
                status = task_pb2.TaskStatus(state=task_pb2.TASK_STATE_STALLED, reason=reason)
                await self._statuses.write(task, status)
            elif pace.has_begun:
                await self.say(task, task_pb2.TASK_STATE_RUNNING)

    async def say(self, task: task_pb2.Task, state: task_pb2.TaskState) -> None:
        """Tell how far a rank is."""
        await self._statuses.write(task, task_pb2.TaskStatus(state=state))

    async def succeeded(self, task: task_pb2.Task, result: job_pb2.JobResult) -> None:
        """Tell what came of the job."""
        status = task_pb2.TaskStatus(state=task_pb2.TASK_STATE_SUCCEEDED, result=result)
        await self._statuses.write(task, status)

    async def failed(self, task: task_pb2.Task, reason: str, user_error: bool) -> None:
        """Tell why a rank cannot go on."""
        status = task_pb2.TaskStatus(
            state=task_pb2.TASK_STATE_FAILED, reason=reason, user_error=user_error
        )
        await self._statuses.write(task, status)

    async def progress(self, progress: job_pb2.JobProgress) -> None:
        """Tell how far the job is."""
        await self._news.progress(progress)

    async def _forward(self, task: task_pb2.Task, child: Child) -> None:
        async for text in child.printed():
            await self._news.printed(task.node_id, rank_of(task), text)


def rank_of(task: task_pb2.Task) -> task_pb2.TrainerTask | task_pb2.ScoreTask:
    """What a rank that may be told to publish is told to do."""
    return task.score if task.HasField("score") else task.trainer
