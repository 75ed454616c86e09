"""What the ranks of a node have people know: how far they are, and what they print."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import structlog

from lepton_ai.proto.v1 import job_pb2, task_pb2
from lepton_runtime.bus import Bus, job_logs, job_progress

__all__ = ["News"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.news")
_WAITING: Final = 1_000
_MAX_LINE: Final = 4096
Rank = task_pb2.TrainerTask | task_pb2.ScoreTask | task_pb2.ScriptTask


class News:
    """Tells the bus, in order, so that no rank waits for a broker that is away.

    Whoever prints faster than the broker takes it waits for room. While the broker takes nothing
    the oldest news make room instead, and how many is logged: a pipe that nobody reads would stop
    whoever prints into it.

    Args:
        bus: Takes them.
        capacity: News that wait.
    """

    def __init__(self, bus: Bus, capacity: int = _WAITING) -> None:
        self._bus = bus
        self._capacity = capacity
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._came = asyncio.Event()
        self._sent = asyncio.Event()
        self._taken = True  # What was sent last.
        self._lost = 0

    async def progress(self, progress: job_pb2.JobProgress) -> None:
        """How far a job is."""
        await self._put(job_progress(progress.job_id), progress.SerializeToString())

    async def printed(self, node_id: str, rank: Rank, text: str) -> None:
        """A line that a rank printed, now."""
        line = job_pb2.LogLine(
            job_id=rank.job_id, rank=rank.rank, node_id=node_id, text=text[:_MAX_LINE]
        )
        line.at.GetCurrentTime()
        await self._put(job_logs(line.job_id), line.SerializeToString())

    async def tell(self) -> None:
        """Send what there is, until cancelled."""
        while True:
            while self._waiting:
                subject, payload = self._waiting.popleft()
                self._taken = await self._bus.publish(subject, payload)
                self._sent.set()
                if self._taken and self._lost:
                    _log.warning("news lost while the broker was away", count=self._lost)
                    self._lost = 0
            self._came.clear()
            await self._came.wait()

    async def _put(self, subject: str, payload: bytes) -> None:
        # Each sending has a deadline, so this comes to an end.
        while len(self._waiting) >= self._capacity and self._taken:
            self._sent.clear()
            await self._sent.wait()
        if len(self._waiting) >= self._capacity:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append((subject, payload))
        self._came.set()
