"""After etcd lost what it knew, storage nodes tell it again from the copies on their disks.

A random mark in etcd stands for its memory. A node that finds another mark than the one it
remembers gives etcd what it has before it takes anything away.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import structlog

from lepton_ai.errors import UnavailableError
from lepton_ai.proto.v1.storage_pb2 import Object
from lepton_runtime import keys
from lepton_runtime.state import Absent, State, Write
from lepton_storage.manifests import Manifests
from lepton_storage.records import Records

__all__ = ["Recovery"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.recovery")


class Recovery:
    """Compares marks.

    Args:
        state: What may have lost its memory.
        manifests: Merges what several nodes know about an object.
        records: What this node remembers.
        mark: A file with the mark that was last seen.
    """

    def __init__(self, state: State, manifests: Manifests, records: Records, mark: Path) -> None:
        self._state = state
        self._manifests = manifests
        self._records = records
        self._mark = mark

    async def ensure(self) -> None:
        """Have the state know what this node knows. Nothing may be removed before."""
        mark = await self._current()
        if self._mark.exists() and self._mark.read_bytes() == mark:
            return
        records = await self._records.all()
        for key, value in records:
            await self._tell(key, value)
        if records:
            _log.warning("state_recovered", records=len(records))
        self._mark.write_bytes(mark)

    async def _current(self) -> bytes:
        new = Write(keys.MEMORY, uuid.uuid4().hex.encode())
        await self._state.commit([Absent(keys.MEMORY)], [new])
        record = await self._state.get(keys.MEMORY)
        if record is None:
            raise UnavailableError("the state forgets what it was just told")
        return record.value

    async def _tell(self, key: str, value: bytes) -> None:
        if key.startswith(keys.OBJECTS):
            await self._manifests.add(Object.FromString(value))
        else:
            await self._state.commit([Absent(key)], [Write(key, value)])
