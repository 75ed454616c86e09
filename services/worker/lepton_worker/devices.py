"""Which accelerators of this node a task has: each belongs to one task at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["NO_DEVICES", "Devices", "present", "see_only"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_DEVICES = {
    _VISIBLE: "",
    # torch asks the driver for devices in a way that does not fix for good which ones there are.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
"""The environment of a process that has no accelerators, until `see_only` gives it some."""


def present() -> int:
    """How many this machine has, without asking the driver."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def see_only(gpus: Sequence[int]) -> None:
    """Let this process use these accelerators and no others, before it has used any.

    They are its devices 0, 1, … from now on; with none it computes on the processor.
    """
    os.environ[_VISIBLE] = ",".join(map(str, gpus))


class Devices:
    """Accelerators, by the numbers that CUDA gives them.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, count: int) -> AsyncGenerator[list[int]]:
        """So many of them inside the block, the lowest first.

        The scheduler places no more tasks than there are accelerators, but one that was told to
        end may not have ended: then this waits. Cancel it to wait no longer.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._free) >= count)
            mine, self._free = self._free[:count], self._free[count:]
        try:
            yield mine
        finally:
            self._free = sorted([*self._free, *mine])
            async with self._changed:
                self._changed.notify_all()
