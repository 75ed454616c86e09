"""Chunks of a job's dataset that its trainers ask for, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from lepton_ai.errors import LeptonError
from lepton_worker.child import Child
from lepton_worker.patience import patiently
from lepton_worker.storage import WorkerStorage

__all__ = ["Deliveries"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.deliveries")
_AT_ONCE = 4


class Deliveries:
    """Brings one trainer the chunks that it asks for.

    Args:
        storage: Where they are.
        object_id: Whose chunks they are.
        child: The trainer.
    """

    def __init__(self, storage: WorkerStorage, object_id: str, child: Child) -> None:
        self._storage = storage
        self._object_id = object_id
        self._child = child
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def bring(self, numbers: Sequence[int]) -> None:
        """Fetch chunks, and tell the trainer of each where it is, or why it is not."""
        async with asyncio.TaskGroup() as tasks:
            for number in numbers:
                tasks.create_task(self._bring_one(number))

    async def _bring_one(self, number: int) -> None:
        async with self._slots:
            try:
                path = await patiently(lambda: self._storage.fetch_chunk(self._object_id, number))
            except (LeptonError, OSError) as error:
                _log.warning("chunk_not_fetched", object=self._object_id, reason=str(error))
                told = {"op": "chunk_failed", "number": number, "reason": str(error)}
            else:
                told = {"op": "chunk", "number": number, "path": str(path)}
        await self._child.tell(told)
