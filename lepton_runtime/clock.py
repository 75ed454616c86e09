"""Time as something a caller passes in, so that tests never wait for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> float:
        """Wall time: seconds since 1970, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Wall time: seconds since 1970, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until a test advances it.

    Example:
        >>> clock = ManualClock(now=1000.0)
        >>> clock.advance(5)
        >>> clock.now()
        1005.0
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._start = now
        self._elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Wall time: seconds since 1970, UTC."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Seconds by which this clock was advanced."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was advanced by `seconds`."""
        awake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), awake))
        await awake

    def advance(self, seconds: float) -> None:
        """Move on by `seconds` and wake whoever slept until then."""
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, awake = heapq.heappop(self._sleepers)
            if not awake.done():
                awake.set_result(None)
