"""The agent: makes what runs on this node what the scheduler has placed on it."""

from __future__ import annotations

import asyncio

import structlog

from lepton_ai.errors import DeadlineExceededError, UnavailableError
from lepton_ai.proto.v1 import task_pb2, worker_pb2
from lepton_runtime import keys
from lepton_runtime.cancellation import end
from lepton_runtime.fencing import still_placed
from lepton_runtime.state import Delete, Put, Record, Snapshot, State, Write
from lepton_worker.ranks import rank_of
from lepton_worker.runners import Runners

__all__ = ["Agent", "StatusWriter", "is_ours"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.agent")
_RETRY_S = 0.5


def is_ours(task: task_pb2.Task, incarnation: str, written_at: int, newest_token: int) -> bool:
    """Whether a task was placed on this very process, by no leader that had been deposed.

    Args:
        task: What is placed.
        incarnation: Of this process.
        written_at: Revision at which its record was written.
        newest_token: Of the leaders heard of: the revision at which that one was elected. What a
            leader wrote before it was deposed still holds.
    """
    deposed = task.fencing_token < newest_token <= written_at
    return task.node_incarnation == incarnation and not deposed


class StatusWriter:
    """Says how far tasks are, each for as long as it is placed here, in the order of the calls."""

    def __init__(self, state: State, node_id: str) -> None:
        self._state = state
        self._node_id = node_id
        self._latest: dict[str, task_pb2.TaskStatus] = {}
        self._writing = asyncio.Lock()

    def latest(self, task_id: str) -> task_pb2.TaskStatus:
        """What was said last of a task; empty before the first word."""
        return self._latest.get(task_id, task_pb2.TaskStatus())

    def forget(self, task_id: str) -> None:
        """Drop what is known of a task that is gone."""
        self._latest.pop(task_id, None)

    async def write(self, task: task_pb2.Task, status: task_pb2.TaskStatus) -> None:
        """Record `status` as that of `task`'s attempt, as soon as the state answers."""
        status.task_id, status.node_id, status.attempt = task.id, self._node_id, task.attempt
        status.updated_at.GetCurrentTime()
        self._latest[task.id] = status
        write = Write(keys.task_status(self._node_id, task.id), status.SerializeToString())
        async with self._writing:
            while not await self._written(task, write):  # noqa: ASYNC110 - etcd sets no event
                await asyncio.sleep(_RETRY_S)

    async def _written(self, task: task_pb2.Task, write: Write) -> bool:
        try:
            if await self._state.commit([still_placed(task)], [write]) is None:
                _log.info("status of the past not written", task=task.id, attempt=task.attempt)
        except (UnavailableError, DeadlineExceededError) as error:
            # What runs goes on, and is told of later.
            _log.warning("status not written yet", task=task.id, reason=str(error))
            return False
        return True


class Agent:
    """Follows the tasks of one node.

    Invariant: one runner a task; an attempt whose record is gone has none.
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

    async def let_go(self) -> None:
        """End what was placed elsewhere while this node was cut off, before it is a member again.

        Raises:
            UnavailableError: The state does not answer.
        """
        known = list(self._tasks)  # what comes meanwhile may be newer than the list
        present = {record.key for record in (await self._state.list(self._prefix)).records}
        for key in known:
            if key not in present:
                await self._drop(key)

    async def run(self) -> None:
        """Follow until cancelled; then end everything."""
        try:
            async for change in self._state.watch(self._prefix):
                match change:
                    case Snapshot(records=records):
                        await self._replace(records)
                    case Put(record=record):
                        await self._put(record)
                    case Delete(key=key):
                        await self._drop(key)
        finally:
            for key in list(self._tasks):
                await self._drop(key)

    async def _replace(self, records: tuple[Record, ...]) -> None:
        present = {record.key for record in records}
        for key in [key for key in self._tasks if key not in present]:
            await self._drop(key)
        for record in sorted(records, key=lambda record: record.mod_revision):
            await self._put(record)

    async def _put(self, record: Record) -> None:
        task = task_pb2.Task.FromString(record.value)
        task.placed_revision = record.create_revision
        if not is_ours(task, self._incarnation, record.mod_revision, self._newest_token):
            _log.warning("task refused", task=task.id, token=task.fencing_token)
            return
        self._newest_token = max(self._newest_token, task.fencing_token)
        known = self._tasks.get(record.key)
        if known is None:
            for key in [key for key, other in self._tasks.items() if other.id == task.id]:
                await self._drop(key)
            self._running[record.key] = asyncio.create_task(self._run(task), name=task.id)
        elif rank_of(task).publish and not rank_of(known).publish:
            self._runners.publish(task)
        elif task.replica != known.replica:
            self._runners.change(task)
        self._tasks[record.key] = task

    async def _run(self, task: task_pb2.Task) -> None:
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
