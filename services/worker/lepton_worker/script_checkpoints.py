"""A script's checkpoint folder, kept on the cluster's storage and brought back from there."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path

import structlog

from lepton_ai.datasets.archives import Limits, unpack
from lepton_ai.errors import LeptonError
from lepton_ai.packing import files_below, pack
from lepton_ai.proto.v1 import task_pb2
from lepton_worker.resuming import JobCheckpoints

__all__ = ["ScriptCheckpoints", "unpack_object"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.checkpoints")
_LOOK_S = 0.5
# What is written to for so long, or while it is packed, is not whole.
_REST_S = 0.1
_MAX_BYTES = 64 * 1024**3
# More than one attempt could ever make, so that a later attempt's come after.
_EACH_ATTEMPT = 1_000_000

_Look = tuple[tuple[str, int, int], ...]


def unpack_object(file: Path, into: Path, name: str) -> None:
    """Unpack an object's file below `into`, an empty folder; `name` is for this alone.

    Raises:
        DataError: It holds what is refused.
        ResourceExhaustedError: There is no room for it.
    """
    archive = into.with_name(f"{name}.tar")
    archive.symlink_to(file)
    unpack(archive, into, Limits(size_bytes=_MAX_BYTES))
    archive.unlink()


class ScriptCheckpoints:
    """The checkpoint folder of one rank; rank 0's is kept.

    Args:
        task: The rank.
        folder: Its checkpoint folder.
        kept: The job's checkpoints on storage.
    """

    def __init__(self, task: task_pb2.Task, folder: Path, kept: JobCheckpoints) -> None:
        self._task = task
        self._folder = folder
        self._kept = kept
        self._stored: _Look = ()
        self._numbers = count(task.script.restarts * _EACH_ATTEMPT + 1)

    async def restore(self) -> None:
        """Fill the folder with the newest checkpoint, if there is one."""
        newest = await self._kept.newest(self._task.script.job_id)
        if newest is not None:
            await asyncio.to_thread(unpack_object, newest, self._folder, "checkpoint")
            self._stored = await self._looked()

    async def follow(self) -> None:
        """Store the folder soon after it has changed, again and again."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.store()

    async def store(self) -> None:
        """Store the folder if it has changed; where that fails, the next time may do better."""
        look = await self._looked()
        if look == self._stored:
            return
        await asyncio.sleep(_REST_S)
        archive = self._folder.with_name("kept.tar")
        try:
            await asyncio.to_thread(self._pack, archive)
            if await self._looked() == look:  # else the next time
                await self._kept.keep(self._task, next(self._numbers), archive)
                self._stored = look
        except (LeptonError, OSError) as error:
            _log.warning("checkpoint not stored", task=self._task.id, reason=str(error))

    def _pack(self, archive: Path) -> None:
        pack(self._folder, files_below(self._folder), archive, _MAX_BYTES)

    async def _looked(self) -> _Look:
        """What is there; it changes while a checkpoint is being written."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> _Look:
        found: list[tuple[str, int, int]] = []
        for path in files_below(self._folder):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            found.append((str(path), facts.st_mtime_ns, facts.st_size))
        return tuple(found)
