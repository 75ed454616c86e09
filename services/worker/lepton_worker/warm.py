"""A trainer that has imported torch and waits, so that a job starts at once."""

from __future__ import annotations

import asyncio

from lepton_worker.child import Child, start_child

__all__ = ["WarmTrainer"]

_MODULE = "lepton_worker.trainer"
# torchft tells of every step otherwise, in the log of the job.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RUST_LOG": "warn"}


class WarmTrainer:
    """Keeps one trainer ready."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Child] = asyncio.Queue(1)
        self._taken = asyncio.Event()

    async def take(self) -> Child:
        """A trainer that waits for its work."""
        while True:
            child = await self._ready.get()
            self._taken.set()
            if child.is_alive:
                return child

    async def run(self) -> None:
        """Keep one ready until cancelled."""
        while True:
            self._taken.clear()
            child = await start_child(_MODULE, environment=_ENVIRONMENT)
            self._ready.put_nowait(child)
            try:
                await self._taken.wait()
            except asyncio.CancelledError:
                await child.kill()
                raise
