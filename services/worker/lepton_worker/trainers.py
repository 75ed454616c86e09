"""A trainer that has imported torch and waits, so that a job starts at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from lepton_runtime.cancellation import end
from lepton_worker.child import Child, start_child
from lepton_worker.devices import NO_DEVICES

__all__ = ["Trainers"]

_MODULE = "lepton_worker.trainer"
# torchft tells of every step otherwise, in the log of the job.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RUST_LOG": "warn", **NO_DEVICES}


class Trainers:
    """The node's trainers, and one to spare while none trains.

    To get one ready takes seconds of a processor, which are not taken from a rank that trains.
    """

    def __init__(self) -> None:
        self._spare: Child | None = None
        self._warming: asyncio.Task[None] | None = None
        self._training = 0
        self._ended = asyncio.Event()

    @property
    def spare(self) -> int:
        """How many are ready."""
        warm = self._warming is not None and self._warming.done()
        return int(self._is_there and warm)

    @property
    def _is_there(self) -> bool:
        return self._spare is not None and self._spare.is_alive

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[Child]:
        """A trainer that waits for its work; it is ended at the end."""
        self._training += 1
        child = await self._take()
        try:
            yield child
        finally:
            await child.kill()
            self._training -= 1
            self._ended.set()

    async def keep_spare(self) -> None:
        """Keep one ready until cancelled."""
        try:
            while True:
                if not self._training and not self._is_there:
                    self._spare = await _start()
                    self._warming = asyncio.create_task(_told(self._spare), name="warming")
                await self._ended.wait()
                self._ended.clear()
        finally:
            spare = await self._given_up()
            if spare is not None:
                await spare.kill()

    async def _take(self) -> Child:
        child = await self._given_up()
        return child if child is not None and child.is_alive else await _start()

    async def _given_up(self) -> Child | None:
        """The spare one, of which nobody here hears any more."""
        child, self._spare = self._spare, None
        warming, self._warming = self._warming, None
        if warming is not None:
            await end(warming)
        return child


async def _told(child: Child) -> None:
    """Wait for a child's first word: a trainer says that it is warm."""
    async with aclosing(child.events()) as events:
        async for _ in events:
            return


async def _start() -> Child:
    return await start_child(_MODULE, environment=_ENVIRONMENT)
