"""Twins of state and bus that live in one process: for tests, and for parts on their own."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from lepton_ai.errors import StaleTokenError
from lepton_runtime.bus import Message, matches, stream_of
from lepton_runtime.state import (
    Absent,
    Change,
    Condition,
    Created,
    Delete,
    Exists,
    Lease,
    Operation,
    Put,
    Record,
    Snapshot,
    Unchanged,
    Write,
    check_operations,
)

__all__ = ["MemoryBus", "MemoryLease", "MemoryState"]

# Changes that a slow watcher may fall behind by before it gets a snapshot instead.
_WATCH_BACKLOG = 1024
_KEPT_MESSAGES = 65_536


@dataclass(eq=False)
class MemoryLease:
    """See `lepton_runtime.state.Lease`."""

    id: int
    state: MemoryState
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self) -> None:
        """Give the lease back, and with it every key written under it."""
        self.state.expire(self)


class MemoryState:
    """See `lepton_runtime.state.State`. Leases end when closed, or by `expire`."""

    def __init__(self) -> None:
        self._revision = 1
        self._records: dict[str, Record] = {}
        self._leases: dict[int, set[str]] = {}
        self._lease_ids = itertools.count(1)
        self._watchers: dict[_Watcher, None] = {}

    async def get(self, key: str) -> Record | None:
        """Read one key; none where it does not exist."""
        return self._records.get(key)

    async def list(self, prefix: str) -> Snapshot:
        """Read every key that begins with `prefix`."""
        found = sorted(key for key in self._records if key.startswith(prefix))
        return Snapshot(tuple(self._records[key] for key in found), self._revision)

    async def commit(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> int | None:
        """Do all operations at once if all conditions hold; see `State.commit`."""
        check_operations(operations)
        if not all(self._holds(condition) for condition in conditions):
            return None
        leases = [o.lease for o in operations if isinstance(o, Write) and o.lease]
        if any(lease.id not in self._leases for lease in leases):
            raise StaleTokenError("the lease to write with is gone")
        self._apply(operations)
        return self._revision

    async def watch(self, prefix: str) -> AsyncGenerator[Change, None]:
        """Follow every key that begins with `prefix`; see `State.watch`."""
        watcher = _Watcher(prefix)
        self._watchers[watcher] = None
        try:
            while True:
                if watcher.behind:
                    watcher.reset()
                    yield await self.list(prefix)
                else:
                    yield await watcher.next()
        finally:
            del self._watchers[watcher]

    async def lease(self, ttl_s: float) -> Lease:
        """Take a lease. It does not run out by itself: see `expire`."""
        lease = MemoryLease(next(self._lease_ids), self)
        self._leases[lease.id] = set()
        return lease

    def expire(self, lease: Lease) -> None:
        """End a lease as if its owner had died."""
        keys = self._leases.pop(lease.id, set())
        lease.lost.set()
        for key in sorted(keys):
            self._revision += 1
            self._delete(key)

    async def close(self) -> None:
        """Nothing is held."""

    def _holds(self, condition: Condition) -> bool:
        record = self._records.get(condition.key)
        match condition:
            case Absent():
                return record is None
            case Exists():
                return record is not None
            case Unchanged(mod_revision=revision):
                return record is not None and record.mod_revision == revision
            case Created(create_revision=revision):
                return record is not None and record.create_revision == revision

    def _apply(self, operations: Sequence[Operation]) -> None:
        effective = [o for o in operations if isinstance(o, Write) or o.key in self._records]
        if effective:
            self._revision += 1
        for operation in effective:
            if isinstance(operation, Write):
                self._put(operation)
            else:
                self._delete(operation.key)

    def _put(self, write: Write) -> None:
        old = self._records.get(write.key)
        created = old.create_revision if old else self._revision
        self._detach(write.key)
        if write.lease:
            self._leases[write.lease.id].add(write.key)
        record = Record(write.key, write.value, created, self._revision)
        self._records[write.key] = record
        self._tell(write.key, Put(record))

    def _delete(self, key: str) -> None:
        self._detach(key)
        del self._records[key]
        self._tell(key, Delete(key, self._revision))

    def _detach(self, key: str) -> None:
        for keys in self._leases.values():
            keys.discard(key)

    def _tell(self, key: str, change: Change) -> None:
        for watcher in self._watchers:
            if key.startswith(watcher.prefix):
                watcher.add(change)


class _Watcher:
    """Changes one watcher has not read; when it falls too far behind, that it must read anew."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.behind = True
        self._changes: deque[Change] = deque()
        self._arrived = asyncio.Event()

    def add(self, change: Change) -> None:
        if len(self._changes) >= _WATCH_BACKLOG:
            self.behind = True
        elif not self.behind:
            self._changes.append(change)
        self._arrived.set()

    def reset(self) -> None:
        self.behind = False
        self._changes.clear()

    async def next(self) -> Change:
        while not self._changes:
            self._arrived.clear()
            await self._arrived.wait()
        return self._changes.popleft()


class MemoryBus:
    """See `lepton_runtime.bus.Bus`."""

    def __init__(self) -> None:
        self._messages: dict[str, deque[Message]] = defaultdict(
            lambda: deque(maxlen=_KEPT_MESSAGES)
        )
        self._seen: set[str] = set()
        self._published: dict[asyncio.Event, None] = {}

    async def publish(self, subject: str, payload: bytes, *, message_id: str | None = None) -> None:
        """Keep the message unless one of the same id was kept."""
        kept = self._messages[stream_of(subject).name]
        if message_id is not None:
            if message_id in self._seen:
                return
            self._seen.add(message_id)
        kept.append(Message(subject, payload, self._last(subject) + 1))
        for event in self._published:
            event.set()

    async def subscribe_new(self, subject: str) -> AsyncGenerator[Message, None]:
        """Messages published after iteration began."""
        async for message in self.subscribe_all(subject, self._last(subject)):
            yield message

    async def subscribe_all(
        self, subject: str, after_sequence: int = 0
    ) -> AsyncGenerator[Message, None]:
        """The kept messages later than `after_sequence`, then new ones as they come."""
        kept = self._messages[stream_of(subject).name]
        published = asyncio.Event()
        self._published[published] = None
        try:
            while True:
                published.clear()
                for message in [m for m in kept if m.sequence > after_sequence]:
                    after_sequence = message.sequence
                    if matches(subject, message.subject):
                        yield message
                await published.wait()
        finally:
            del self._published[published]

    async def close(self) -> None:
        """Nothing is held."""

    def _last(self, subject: str) -> int:
        kept = self._messages[stream_of(subject).name]
        return kept[-1].sequence if kept else 0
