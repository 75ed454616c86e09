"""Time as something that is handed in, so that tests decide how it passes."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """Where a service gets the time from."""

    def now(self) -> float:
        """Seconds since the Unix epoch, for people and records."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards, for measuring."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...


class SystemClock:
    """The machine's time."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` on the event loop."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until a test advances it.

    Args:
        start: The first `now`, seconds since the Unix epoch.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._time = start
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """The time a test has set."""
        return self._time

    def monotonic(self) -> float:
        """The same time: it runs only forwards."""
        return self._time

    async def sleep(self, seconds: float) -> None:
        """Wait until the test has advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._time + seconds, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking sleepers in order and letting each of them run."""
        end = self._time + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self._time, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await _settle()
        self._time = end
        await _settle()


async def _settle() -> None:
    # Enough turns of the loop for a chain of awaits between two sleeps to complete.
    for _ in range(20):
        await asyncio.sleep(0)
