"""The agent: makes what runs on this node what the scheduler has placed on it."""

from __future__ import annotations

import asyncio

import structlog

from lepton_ai.proto.v1 import task_pb2, worker_pb2
from lepton_runtime import keys
from lepton_runtime.cancellation import end
from lepton_runtime.state import Delete, Exists, Put, Record, Snapshot, State, Write
from lepton_worker.runners import Runners

__all__ = ["Agent", "StatusWriter", "is_ours"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.agent")


def is_ours(task: task_pb2.Task, incarnation: str, newest_token: int) -> bool:
    """Whether a task was placed on this very process, by no leader that has been deposed."""
    return task.node_incarnation == incarnation and task.fencing_token >= newest_token


class StatusWriter:
    """Says how far a task is, for as long as the task exists."""

    def __init__(self, state: State, node_id: str) -> None:
        self._state = state
        self._node_id = node_id
        self._latest: dict[str, task_pb2.TaskStatus] = {}

    def latest(self, task_id: str) -> task_pb2.TaskStatus:
        """What was said last of a task; empty before the first word."""
        return self._latest.get(task_id, task_pb2.TaskStatus())

    def forget(self, task_id: str) -> None:
        """Drop what is known of a task that is gone."""
        self._latest.pop(task_id, None)

    async def write(self, task: task_pb2.Task, status: task_pb2.TaskStatus) -> None:
        """Record `status` as that of `task`'s attempt."""
        status.task_id, status.node_id, status.attempt = task.id, self._node_id, task.attempt
        status.updated_at.GetCurrentTime()
        self._latest[task.id] = status
        key = keys.task(self._node_id, task.id)
        write = Write(keys.task_status(self._node_id, task.id), status.SerializeToString())
        await self._state.commit([Exists(key)], [write])


class Agent:
    """Follows the tasks of one node.

    Invariant: one runner a task and attempt; a task whose record is gone has no runner.
    """

    def __init__(
        self,
        state: State,
        node_id: str,
        incarnation: str,
        runners: Runners,
        statuses: StatusWriter,
    ) -> None:
        self._state = state
        self._statuses = statuses
        self._prefix = f"{keys.TASKS}{node_id}/"
        self._incarnation = incarnation
        self._runners = runners
        self._tasks: dict[str, task_pb2.Task] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._newest_token = 0

    def running(self) -> list[worker_pb2.RunningTask]:
        """What runs here, process by process."""
        return [
            worker_pb2.RunningTask(
                task=task,
                status=self._statuses.latest(task.id),
                pid=self._runners.pid(task.id),
            )
            for task in self._tasks.values()
        ]

    async def run(self) -> None:
        """Follow until cancelled; then end everything."""
        try:
            async for change in self._state.watch(self._prefix):
                match change:
                    case Snapshot(records=records):
                        await self._replace(records)
                    case Put(record=record):
                        self._put(record)
                    case Delete(key=key):
                        await self._drop(key)
        finally:
            for key in list(self._tasks):
                await self._drop(key)

    async def _replace(self, records: tuple[Record, ...]) -> None:
        present = {record.key for record in records}
        for key in [key for key in self._tasks if key not in present]:
            await self._drop(key)
        for record in records:
            self._put(record)

    def _put(self, record: Record) -> None:
        task = task_pb2.Task.FromString(record.value)
        if not is_ours(task, self._incarnation, self._newest_token):
            _log.info("task refused", task=task.id, token=task.fencing_token)
            return
        self._newest_token = max(self._newest_token, task.fencing_token)
        known = self._tasks.get(record.key)
        self._tasks[record.key] = task
        if known is None or known.attempt != task.attempt:
            self._start(record.key, task)
        elif task.trainer.publish and not known.trainer.publish:
            self._runners.publish(task)

    def _start(self, key: str, task: task_pb2.Task) -> None:
        before = self._running.get(key)
        self._running[key] = asyncio.create_task(self._run(task, before), name=task.id)

    async def _run(self, task: task_pb2.Task, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await end(before)
        _log.info("task starts", task=task.id, attempt=task.attempt)
        await self._runners.run(task)
        _log.info("task ended", task=task.id, attempt=task.attempt)

    async def _drop(self, key: str) -> None:
        task = self._tasks.pop(key, None)
        running = self._running.pop(key, None)
        if task is None or running is None:
            return
        _log.info("task is dropped", task=task.id, attempt=task.attempt)
        await end(running)
        self._statuses.forget(task.id)
