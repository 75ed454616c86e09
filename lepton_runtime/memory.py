"""In-memory twins of state and bus: the same behaviour, no network. For tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from lepton_ai.errors import InvalidArgumentError, UnavailableError
from lepton_runtime.bus import Message
from lepton_runtime.state import (
    MAX_OPERATIONS,
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
)

__all__ = ["MemoryBus", "MemoryLease", "MemoryState"]


class MemoryLease:
    """A lease that lives until it is closed or a test expires it."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state
        self._lost = asyncio.Event()

    @property
    def lost(self) -> asyncio.Event:
        """Set once the lease is gone."""
        return self._lost

    async def close(self) -> None:
        """Give the lease up; its keys vanish at once."""
        self.expire()

    def expire(self) -> None:
        """What etcd does when renewals stop."""
        if not self._lost.is_set():
            self._lost.set()
            self._state.drop_leased(self)


class MemoryState:
    """The twin of etcd."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._leases: dict[str, Lease] = {}
        self._revision = 1
        self._watchers: list[tuple[str, asyncio.Queue[Change | None]]] = []
        self._closed = False

    async def get(self, key: str) -> Record | None:
        """The record at `key`, or None."""
        self._check_open()
        return self._records.get(key)

    async def list(self, prefix: str) -> Snapshot:
        """All records below `prefix`."""
        self._check_open()
        return self._snapshot(prefix)

    async def commit(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> int | None:
        """Apply all operations if all conditions hold."""
        self._check_open()
        if len(operations) > len({o.key for o in operations}) or len(operations) > MAX_OPERATIONS:
            raise InvalidArgumentError("at most 128 operations, each on another key")
        if not all(self._holds(condition) for condition in conditions):
            return None
        leases = [o.lease for o in operations if isinstance(o, Write) and o.lease is not None]
        if any(lease.lost.is_set() for lease in leases):
            raise UnavailableError("the lease has run out", hint="take a new lease")
        self._revision += 1
        for operation in operations:
            if isinstance(operation, Write):
                self._write(operation)
            else:
                self._remove(operation.key)
        return self._revision

    async def watch(self, prefix: str) -> AsyncGenerator[Change]:
        """Follow a prefix: a snapshot, then changes."""
        self._check_open()
        changes: asyncio.Queue[Change | None] = asyncio.Queue()
        changes.put_nowait(self._snapshot(prefix))
        watcher = (prefix, changes)
        self._watchers.append(watcher)
        try:
            while (change := await changes.get()) is not None:
                yield change
        finally:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    async def lease(self, ttl_s: float) -> MemoryLease:
        """A lease that a test can expire."""
        self._check_open()
        return MemoryLease(self)

    async def close(self) -> None:
        """Refuse further calls and end every watch."""
        self._closed = True
        for _, changes in self._watchers:
            changes.put_nowait(None)

    def interrupt_watches(self) -> None:
        """What a lost connection or a compaction does: every watcher begins anew."""
        for prefix, changes in self._watchers:
            changes.put_nowait(self._snapshot(prefix))

    def mute_watches(self) -> None:
        """What a partition does: watchers hear nothing more, and do not notice."""
        self._watchers.clear()

    def drop_leased(self, lease: Lease) -> None:
        """Remove the keys written under `lease`."""
        self._revision += 1
        for key in [key for key, owner in self._leases.items() if owner is lease]:
            self._remove(key)

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("the state is closed")

    def _snapshot(self, prefix: str) -> Snapshot:
        found = sorted(key for key in self._records if key.startswith(prefix))
        return Snapshot(tuple(self._records[key] for key in found), self._revision)

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

    def _write(self, write: Write) -> None:
        old = self._records.get(write.key)
        created = old.create_revision if old else self._revision
        record = Record(write.key, write.value, created, self._revision)
        self._records[write.key] = record
        self._leases.pop(write.key, None)
        if write.lease is not None:
            self._leases[write.key] = write.lease
        self._tell(write.key, Put(record))

    def _remove(self, key: str) -> None:
        self._leases.pop(key, None)
        if self._records.pop(key, None):
            self._tell(key, Delete(key, self._revision))

    def _tell(self, key: str, change: Change) -> None:
        for prefix, changes in self._watchers:
            if key.startswith(prefix):
                changes.put_nowait(change)


_Subscriber = tuple[str, asyncio.Queue[Message | None]]


class MemoryBus:
    """The twin of NATS JetStream."""

    def __init__(self) -> None:
        self._kept: list[Message] = []
        self._ids: set[str] = set()
        self._subscribers: list[_Subscriber] = []
        self._listeners: list[_Subscriber] = []

    async def publish(self, subject: str, payload: bytes, *, message_id: str | None = None) -> bool:
        """Publish; a known id is dropped."""
        if message_id is not None:
            if message_id in self._ids:
                return True
            self._ids.add(message_id)
        message = Message(subject, payload, len(self._kept) + 1)
        self._kept.append(message)
        for pattern, messages in self._subscribers:
            if _matches(pattern, subject):
                messages.put_nowait(message)
        return True

    async def subscribe_new(self, subject: str) -> AsyncIterator[Message]:
        """Messages published from now on."""
        async for message in self._follow(subject, len(self._kept)):
            yield message

    async def subscribe_all(self, subject: str, after_sequence: int = 0) -> AsyncIterator[Message]:
        """Kept messages after a sequence, then new ones."""
        async for message in self._follow(subject, after_sequence):
            yield message

    async def kept(self, subject: str, after_sequence: int = 0) -> list[Message]:
        """Kept messages after a sequence."""
        return [m for m in self._kept[after_sequence:] if _matches(subject, m.subject)]

    async def say(self, subject: str, payload: bytes) -> None:
        """Publish to whoever listens now."""
        for pattern, messages in self._listeners:
            if _matches(pattern, subject):
                messages.put_nowait(Message(subject, payload, 0))

    async def listen(self, subject: str) -> AsyncIterator[Message]:
        """What is said from now on."""
        async for message in _heard(self._listeners, (subject, asyncio.Queue())):
            yield message

    async def close(self) -> None:
        """End every subscription."""
        for _, messages in (*self._subscribers, *self._listeners):
            messages.put_nowait(None)

    async def _follow(self, subject: str, after_sequence: int) -> AsyncIterator[Message]:
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        for message in await self.kept(subject, after_sequence):
            messages.put_nowait(message)
        async for message in _heard(self._subscribers, (subject, messages)):
            yield message


async def _heard(subscribers: list[_Subscriber], one: _Subscriber) -> AsyncIterator[Message]:
    subscribers.append(one)
    try:
        while (message := await one[1].get()) is not None:
            yield message
    finally:
        subscribers.remove(one)


def _matches(pattern: str, subject: str) -> bool:
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, tokens = wanted[:-1], tokens[: len(wanted) - 1]
    return len(wanted) == len(tokens) and all(
        w in ("*", t) for w, t in zip(wanted, tokens, strict=True)
    )
