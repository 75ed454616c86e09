"""Objects on this node's disk: fetched once, checked each time, the least used ones evicted."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from lepton_ai.chunking import id_of_file
from lepton_runtime.clock import Clock

__all__ = ["ObjectCache"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.worker.cache")
# Who was given a file opens it within this time; an open file outlives its name.
_OPENING_S = 600.0


class ObjectCache:
    """Files named by their objects' ids.

    Args:
        folder: Made when it is missing.
        max_bytes: What the files may take together; what was given out just now stays beyond it.
        clock: Tells when a file was used last.
    """

    def __init__(self, folder: Path, max_bytes: int, clock: Clock) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._fetching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        folder.mkdir(parents=True, exist_ok=True)

    async def get(self, object_id: str, fetch: Callable[[Path], Awaitable[None]]) -> Path:
        """The file of an object; `fetch` writes it where it is not here or has decayed."""
        path = self._folder / object_id
        async with self._fetching[object_id]:
            if not await asyncio.to_thread(_is_good, path):
                await fetch(path)
            now = self._clock.now()
            await asyncio.to_thread(os.utime, path, (now, now))
        await asyncio.to_thread(self._evict)
        return path

    def _evict(self) -> None:
        """Remove the files that were not used for longest until the rest fit."""
        files = sorted((path.stat().st_mtime, path) for path in self._folder.glob("b3-*"))
        excess = sum(path.stat().st_size for _, path in files) - self._max_bytes
        for used_at, path in files:
            if excess <= 0 or used_at > self._clock.now() - _OPENING_S:
                return
            excess -= path.stat().st_size
            path.unlink()
            _log.info("evicted", object=path.name)


def _is_good(path: Path) -> bool:
    """Whether a file is there and is the object it is named after."""
    if not path.exists():
        return False
    if id_of_file(path) == path.name:
        return True
    _log.error("cached file spoilt", object=path.name)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return False
