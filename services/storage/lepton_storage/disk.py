"""Chunks as files. What was written is there after a power cut, and bad copies are never read.

A chunk lies at ``chunks/ab/abcd…``, named by its hash. It is written beside its place, flushed,
renamed, and its folder flushed: at every moment a name has either no content or the right one,
but for what the disk itself spoils. Spoilt copies move to ``quarantine`` for a person to see.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
import uuid
from collections.abc import Collection, Set
from pathlib import Path

import structlog

from lepton_ai.chunking import digest
from lepton_ai.errors import DataCorruptError, NotFoundError, ResourceExhaustedError

__all__ = ["Disk"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.disk")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """Keeps chunks below a folder. All file work happens in threads.

    Args:
        folder: Made when it is missing; what an earlier crash left unfinished is removed.
        reserve_bytes: Free space that is never used.
    """

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._chunks = folder / "chunks"
        self._unfinished = folder / "unfinished"
        self._quarantine = folder / "quarantine"
        self._reserve_bytes = reserve_bytes
        # A chunk may not be renewed between the look at its age and its removal.
        self._collecting = threading.Lock()
        shutil.rmtree(self._unfinished, ignore_errors=True)
        for place in (self._chunks, self._unfinished, self._quarantine):
            place.mkdir(parents=True, exist_ok=True)

    async def write(self, chunk_hash: bytes, data: bytes) -> None:
        """Keep `data`, durably once this returns. A good copy that is there already stays.

        Raises:
            DataCorruptError: `data` does not have that hash; nothing is kept.
            ResourceExhaustedError: The disk is full; nothing is kept.
        """
        await asyncio.to_thread(self._write, chunk_hash, data)

    async def read(self, chunk_hash: bytes) -> bytes:
        """The chunk's bytes, checked against its hash.

        Raises:
            NotFoundError: There is no copy here.
            DataCorruptError: The copy was bad; it is now out of the way.
        """
        return await asyncio.to_thread(self._read, chunk_hash)

    async def good(self, chunk_hashes: Collection[bytes]) -> set[bytes]:
        """Those of which there is a good copy here; these are young now, so that none goes soon."""
        return await asyncio.to_thread(self._good, chunk_hashes)

    async def missing(self, chunk_hashes: Collection[bytes]) -> set[bytes]:
        """Those of which there is no copy here, good or bad."""
        return await asyncio.to_thread(self._missing, chunk_hashes)

    async def hashes(self) -> list[bytes]:
        """What there is a copy of here, good or bad."""
        return await asyncio.to_thread(self._hashes)

    async def collect(self, named: Set[bytes], written_before: float) -> int:
        """Remove chunks that are not `named` and were last put before a time (Unix, seconds).

        Returns:
            How many.
        """
        return await asyncio.to_thread(self._collect, named, written_before)

    async def usage(self) -> tuple[int, int]:
        """Capacity and usable free space, in bytes."""
        usage = await asyncio.to_thread(shutil.disk_usage, self._chunks)
        return usage.total, max(usage.free - self._reserve_bytes, 0)

    def _path(self, chunk_hash: bytes) -> Path:
        name = chunk_hash.hex()
        return self._chunks / name[:2] / name

    def _good(self, chunk_hashes: Collection[bytes]) -> set[bytes]:
        return {each for each in chunk_hashes if self._renewed(each) and self._has_good(each)}

    def _hashes(self) -> list[bytes]:
        return [bytes.fromhex(path.name) for path in self._chunks.glob("*/*")]

    def _missing(self, chunk_hashes: Collection[bytes]) -> set[bytes]:
        return {each for each in chunk_hashes if not self._path(each).exists()}

    def _write(self, chunk_hash: bytes, data: bytes) -> None:
        if digest(data) != chunk_hash:
            raise DataCorruptError("a chunk does not match its hash")
        if self._renewed(chunk_hash) and self._has_good(chunk_hash):
            return
        if shutil.disk_usage(self._chunks).free - len(data) < self._reserve_bytes:
            raise _full()
        temporary = self._unfinished / uuid.uuid4().hex
        try:
            _write_durably(temporary, self._path(chunk_hash), data)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise (_full() if error.errno in _FULL else error) from None

    def _renewed(self, chunk_hash: bytes) -> bool:
        """Make a copy that is there as young as a new one: its new object is yet to be known."""
        with self._collecting:
            try:
                os.utime(self._path(chunk_hash))
            except FileNotFoundError:
                return False
            return True

    def _collect(self, named: Set[bytes], written_before: float) -> int:
        unnamed = [
            path for path in self._chunks.glob("*/*") if bytes.fromhex(path.name) not in named
        ]
        return sum(self._removed(path, written_before) for path in unnamed)

    def _removed(self, path: Path, written_before: float) -> bool:
        with self._collecting:
            try:
                if path.stat().st_mtime >= written_before:
                    return False
                path.unlink()
            except FileNotFoundError:  # it went to quarantine meanwhile
                return False
        return True

    def _has_good(self, chunk_hash: bytes) -> bool:
        try:
            self._read(chunk_hash)
        except (NotFoundError, DataCorruptError):
            return False
        return True

    def _read(self, chunk_hash: bytes) -> bytes:
        path = self._path(chunk_hash)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFoundError("the chunk is not on this node", chunk=chunk_hash.hex()) from None
        except OSError as error:
            _log.error("disk_unreadable", chunk=chunk_hash.hex(), error=error.strerror)
            raise self._spoilt(path) from None
        if digest(data) != chunk_hash:
            raise self._spoilt(path)
        return data

    def _spoilt(self, path: Path) -> DataCorruptError:
        _log.error("chunk_quarantined", chunk=path.name)
        path.replace(self._quarantine / f"{path.name}-{uuid.uuid4().hex[:8]}")
        return DataCorruptError("the copy on this node is bad", chunk=path.name)


def _write_durably(temporary: Path, path: Path, data: bytes) -> None:
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if not path.parent.exists():
        path.parent.mkdir(exist_ok=True)
        _flush_folder(path.parent.parent)
    temporary.replace(path)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _full() -> ResourceExhaustedError:
    return ResourceExhaustedError(
        "the storage node's disk is full", hint="free space or add a storage node"
    )
