"""In-memory twins of work queues and ledgers: the same behaviour, no network. For tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from lepton_ai.errors import InvalidArgumentError, ResourceExhaustedError
from lepton_runtime.queues import Bounds

__all__ = ["MemoryDelivery", "MemoryLedger", "MemoryQueues", "MemoryWorkQueue"]

_MOST_BYTES = 1024 * 1024


class MemoryDelivery:
    """A piece of work, and what became of it."""

    def __init__(self, queue: MemoryWorkQueue, key: str, payload: bytes, tries: int) -> None:
        self._queue = queue
        self._key = key
        self.payload = payload
        self.tries = tries

    async def working(self) -> None:
        """Count that it is being done."""
        self._queue.heartbeats += 1

    async def done(self) -> None:
        """Nobody gets it again."""
        self._queue.forget(self._key)

    async def again(self, pause_s: float) -> None:
        """Hand it out anew at once; the pause is remembered."""
        self._queue.pauses_s.append(pause_s)
        self._queue.hand_out(self._key)


class MemoryWorkQueue:
    """The twin of a stream of work.

    Attributes:
        pauses_s: What takers asked for.
        heartbeats: How often takers said that they are alive.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._seen: set[str] = set()
        self._kept: dict[str, tuple[bytes, int]] = {}
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self.pauses_s: list[float] = []
        self.heartbeats = 0

    @property
    def most_bytes(self) -> int:
        """Size of a payload."""
        return _MOST_BYTES

    def __len__(self) -> int:
        """Pieces of work that are not done."""
        return len(self._kept)

    async def put(self, key: str, payload: bytes) -> None:
        """Add work, unless it was added already."""
        if len(payload) > _MOST_BYTES:
            raise InvalidArgumentError(f"{len(payload)} bytes are too many for the queue")
        if key in self._seen:
            return
        if len(self._kept) >= self._bounds.entries:
            raise _full()
        self._seen.add(key)
        self._kept[key] = payload, 0
        self.hand_out(key)

    async def taken(self) -> AsyncGenerator[MemoryDelivery]:
        """Work, one at a time."""
        while True:
            key = await self._ready.get()
            if key in self._kept:
                payload, tries = self._kept[key]
                self._kept[key] = payload, tries + 1
                yield MemoryDelivery(self, key, payload, tries + 1)

    def hand_out(self, key: str) -> None:
        """Let somebody take it."""
        self._ready.put_nowait(key)

    def forget(self, key: str) -> None:
        """Keep it no longer."""
        self._kept.pop(key, None)

    def lose_takers(self) -> None:
        """What silence does: all that is not done is handed out again."""
        for key in self._kept:
            self.hand_out(key)


class MemoryLedger:
    """The twin of a stream of facts."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._facts: dict[str, bytes] = {}
        self._changed = asyncio.Event()

    async def create(self, key: str, value: bytes) -> bool:
        """Write a fact; False where there is one already."""
        if key in self._facts:
            return False
        if len(self._facts) >= self._bounds.entries:
            raise _full()
        self._facts[key] = value
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    async def get(self, key: str) -> bytes | None:
        """The fact under a key."""
        return self._facts.get(key)

    async def wait(self, key: str, timeout_s: float) -> bytes | None:
        """The fact under a key, once it is there."""
        try:
            async with asyncio.timeout(timeout_s):
                while key not in self._facts:
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._facts[key]

    def expire(self, key: str) -> None:
        """What age does."""
        del self._facts[key]


class MemoryQueues:
    """Makes twins, and keeps them by name."""

    def __init__(self) -> None:
        self.work_queues: dict[str, MemoryWorkQueue] = {}
        self.ledgers: dict[str, MemoryLedger] = {}

    async def work_queue(self, name: str, bounds: Bounds) -> MemoryWorkQueue:
        """The queue of that name."""
        return self.work_queues.setdefault(name, MemoryWorkQueue(bounds))

    async def ledger(self, name: str, bounds: Bounds) -> MemoryLedger:
        """The ledger of that name."""
        return self.ledgers.setdefault(name, MemoryLedger(bounds))


def _full() -> ResourceExhaustedError:
    error = ResourceExhaustedError("the queue is full", hint="try again later")
    error.retry_after_s = 5.0
    return error
