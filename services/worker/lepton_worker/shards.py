"""The shards of a scoring job: each is claimed, done and recorded once, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import NamedTuple

import structlog

from lepton_ai.errors import DeadlineExceededError, UnavailableError
from lepton_ai.proto.v1 import node_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.fencing import still_placed
from lepton_runtime.state import Absent, Condition, Put, Record, Snapshot, State, Unchanged, Write

__all__ = ["Entry", "Shards", "next_free"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.shards")
_RETRY_S = 0.5


class Entry(NamedTuple):
    """A shard's record, and the revision at which it was written."""

    shard: task_pb2.Shard
    revision: int


def next_free(entries: Mapping[int, Entry], count: int, start: int) -> int | None:
    """The first shard from `start` on, and round, that nobody ever claimed.

    Ranks that begin at different places seldom want the same one.
    """
    order = ((start + offset) % count for offset in range(count))
    return next((number for number in order if number not in entries), None)


class Shards:
    """The shards of one job as one rank sees them.

    A claim is void once its attempt is no longer placed or its node is gone; whoever finds it takes
    it over. What the former holder still writes is refused: the record is no longer its claim.

    Args:
        state: Where the records are.
        task: The rank, with the revision at which it was placed.
        count: How many shards there are.
        start: Where this rank begins.
    """

    def __init__(self, state: State, task: task_pb2.Task, count: int, start: int) -> None:
        self._state = state
        self._task = task
        self._count = count
        self._start = start
        self._entries: dict[int, Entry] = {}
        self._mine: dict[int, int] = {}  # what is being done here, and the revision of the claim
        self._seen = asyncio.Event()
        self._changed = asyncio.Event()
        self._choosing = asyncio.Lock()

    @property
    def done(self) -> int:
        """How many have a result."""
        return sum(bool(entry.shard.result_object) for entry in self._entries.values())

    @property
    def busy_ranks(self) -> int:
        """How many ranks do one now."""
        entries = self._entries.values()
        return len({e.shard.task_id for e in entries if not e.shard.result_object})

    def results(self) -> list[str]:
        """The objects with what came of each, in order, once all are done."""
        return [self._entries[number].shard.result_object for number in range(self._count)]

    async def follow(self) -> None:
        """Keep up with what other ranks do, until cancelled."""
        prefix = keys.shards(self._task.score.job_id)
        async for change in self._state.watch(prefix):
            match change:
                case Snapshot(records=records):
                    self._entries = dict(_entry(prefix, record) for record in records)
                    self._seen.set()
                case Put(record=record):
                    self._note(*_entry(prefix, record))
                case _:
                    pass  # removed with the job
            self._changed.set()

    async def take(self) -> int | None:
        """Claim a shard, waiting for one to become free; None once every one is done."""
        await self._seen.wait()
        async with self._choosing:
            while self.done < self._count:
                self._changed.clear()
                number = next_free(self._entries, self._count, self._start)
                if number is None:
                    number = await self._abandoned()
                if number is not None and await self._claim(number):
                    return number
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._changed.wait()
        return None

    async def finish(self, number: int, object_id: str) -> bool:
        """Record what came of a claimed shard.

        Returns:
            Whether that counts. It does not when this attempt was replaced.
        """
        shard = self._shard()
        shard.result_object = object_id
        revision = await self._write(
            number, shard, Unchanged(self._key(number), self._mine[number])
        )
        del self._mine[number]
        return revision is not None

    async def _claim(self, number: int) -> bool:
        entry = self._entries.get(number)
        key = self._key(number)
        there = Unchanged(key, entry.revision) if entry else Absent(key)
        revision = await self._write(number, self._shard(), there)
        if revision is not None:
            self._mine[number] = revision
        return revision is not None

    async def _write(self, number: int, shard: task_pb2.Shard, there: Condition) -> int | None:
        """Write a record, however long the state is away; the revision, or None where refused."""
        write = Write(self._key(number), shard.SerializeToString())
        while True:
            try:
                revision = await self._state.commit([still_placed(self._task), there], [write])
                if revision is None:
                    revision = await self._written(number, shard)
            except (UnavailableError, DeadlineExceededError) as error:
                _log.warning("shard not written yet", shard=number, reason=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            if revision is not None:
                self._note(number, Entry(shard, revision))
            return revision

    async def _written(self, number: int, shard: task_pb2.Shard) -> int | None:
        """Where this very record was written although the answer was lost: its revision."""
        record = await self._state.get(self._key(number))
        same = record is not None and task_pb2.Shard.FromString(record.value) == shard
        return record.mod_revision if record is not None and same else None

    async def _abandoned(self) -> int | None:
        """A shard whose holder is gone."""
        for number, entry in list(self._entries.items()):
            if entry.shard.result_object or number in self._mine:
                continue
            try:
                if entry.shard == self._shard() or not await self._lives(entry.shard):
                    return number
            except (UnavailableError, DeadlineExceededError) as error:
                _log.warning("holders not known", reason=str(error))
                return None
        return None

    async def _lives(self, holder: task_pb2.Shard) -> bool:
        """Whether a claim's attempt is placed, on a node that is the one it was placed on."""
        task = keys.task(holder.node_id, holder.task_id, holder.attempt)
        placed = await self._state.get(task)
        node = await self._state.get(keys.node(holder.node_id))
        return (
            placed is not None
            and placed.create_revision == holder.placed_revision
            and node is not None
            and node_pb2.Node.FromString(node.value).incarnation == holder.node_incarnation
        )

    def _note(self, number: int, entry: Entry) -> None:
        """Take in a record, unless a newer one is known."""
        known = self._entries.get(number)
        if known is None or known.revision < entry.revision:
            self._entries[number] = entry

    def _shard(self) -> task_pb2.Shard:
        """A claim of this attempt's."""
        task = self._task
        return task_pb2.Shard(
            task_id=task.id,
            node_id=task.node_id,
            node_incarnation=task.node_incarnation,
            attempt=task.attempt,
            placed_revision=task.placed_revision,
        )

    def _key(self, number: int) -> str:
        return keys.shard(self._task.score.job_id, number)


def _entry(prefix: str, record: Record) -> tuple[int, Entry]:
    number = int(record.key.removeprefix(prefix))
    return number, Entry(task_pb2.Shard.FromString(record.value), record.mod_revision)
