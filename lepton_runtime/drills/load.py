"""Requests that go on while a drill hurts the cluster: each answered, or counted as failed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import numpy as np

from lepton_ai.cluster.endpoint import AsyncEndpoint
from lepton_ai.errors import LeptonError

__all__ = ["AT_ONCE", "LEAST_PER_S", "Load", "sent_to"]

AT_ONCE = 2
# What a drill counts as load: fewer answers would prove little.
LEAST_PER_S = 20.0
_PAUSE_S = 0.02
_TIMEOUT_S = 10.0


@dataclass
class Load:
    """What came of the requests so far."""

    answered: int = 0
    failures: list[str] = field(default_factory=list[str])
    began: float = field(default_factory=time.monotonic)

    @property
    def per_s(self) -> float:
        """Requests answered in a second."""
        return self.answered / max(time.monotonic() - self.began, 1e-9)


@contextlib.asynccontextmanager
async def sent_to(endpoint: AsyncEndpoint, row: np.ndarray) -> AsyncGenerator[Load]:
    """Ask about one row, `AT_ONCE` requests at a time, for as long as this block lasts."""
    load = Load()
    senders = [asyncio.create_task(_send(endpoint, row[np.newaxis], load)) for _ in range(AT_ONCE)]
    try:
        yield load
    finally:
        for sender in senders:
            sender.cancel()
        await asyncio.wait(senders)


async def _send(endpoint: AsyncEndpoint, rows: np.ndarray, load: Load) -> None:
    while True:
        try:
            await endpoint.predict(rows, timeout_s=_TIMEOUT_S)
            load.answered += 1
        except LeptonError as error:
            load.failures.append(str(error))
        await asyncio.sleep(_PAUSE_S)
