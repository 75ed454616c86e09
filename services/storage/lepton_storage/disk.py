"""Chunks as files on a disk. What was written is there after a power cut.

A chunk's file is ``chunks/ab/abcd…``, named by its hash. It is written beside its place, flushed,
renamed, and its folder flushed: at every moment a name has either no content or the right one,
but for what the disk itself spoils. Spoilt files move to ``quarantine`` for a person to see.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import threading
import uuid
from collections.abc import Sequence, Set
from pathlib import Path

import structlog

from lepton_ai.errors import DataCorruptError, NotFoundError, ResourceExhaustedError

__all__ = ["Disk"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.disk")
_BUDGET_BYTES = 16 * 1024 * 1024
# A write returns once what it wrote is on the disk.
_DURABLE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DSYNC
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """An `Engine` below a folder.

    Small chunks come by the thousand: paths are texts here, for `pathlib` takes as long as the
    system calls.

    Args:
        folder: Made when it is missing; what an earlier crash left unfinished is removed.
        reserve_bytes: Free space that is never used.
    """

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._chunks = folder / "chunks"
        self._unfinished = folder / "unfinished"
        self._number = itertools.count()
        self._quarantine = folder / "quarantine"
        self._reserve_bytes = reserve_bytes
        # Known to be free when it was last looked: small chunks need no look each.
        self._budget_bytes = 0
        # A chunk may not be renewed between the look at its age and its removal.
        self._collecting = threading.Lock()
        shutil.rmtree(self._unfinished, ignore_errors=True)
        for place in (self._chunks, self._unfinished, self._quarantine):
            place.mkdir(parents=True, exist_ok=True)
        for first in range(256):
            (self._chunks / f"{first:02x}").mkdir(exist_ok=True)
        _flush_folder(str(self._chunks))

    def put(self, chunk_hash: bytes, parts: Sequence[bytes | memoryview]) -> None:
        """Keep a file in place of what was there; durable once this returns.

        Raises:
            ResourceExhaustedError: The disk is full; nothing is kept.
        """
        self._claim(sum(len(part) for part in parts))
        temporary = f"{self._unfinished}/{next(self._number)}"
        try:
            _write_durably(temporary, self._path(chunk_hash), parts)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise (_full() if error.errno in _FULL else error) from None

    def get(self, chunk_hash: bytes) -> bytes:
        """A file's content.

        Raises:
            NotFoundError: There is none.
            DataCorruptError: It cannot be read.
        """
        try:
            with open(self._path(chunk_hash), "rb", buffering=0) as file:
                return file.read()
        except FileNotFoundError:
            raise NotFoundError("the chunk is not on this node", chunk=chunk_hash.hex()) from None
        except OSError as error:
            _log.error("disk_unreadable", chunk=chunk_hash.hex(), error=error.strerror)
            raise DataCorruptError("the disk cannot read it", chunk=chunk_hash.hex()) from None

    def renew(self, chunk_hash: bytes) -> bool:
        """Make a file that is there as young as a new one; whether it is there."""
        with self._collecting:
            try:
                os.utime(self._path(chunk_hash))
            except FileNotFoundError:
                return False
            return True

    def set_aside(self, chunk_hash: bytes) -> None:
        """Take a bad file out of the way."""
        aside = self._quarantine / f"{chunk_hash.hex()}-{uuid.uuid4().hex[:8]}"
        with contextlib.suppress(FileNotFoundError):  # another reader did
            os.replace(self._path(chunk_hash), aside)

    def has(self, chunk_hash: bytes) -> bool:
        """Whether there is a file, good or bad."""
        return os.path.exists(self._path(chunk_hash))

    def hashes(self) -> list[bytes]:
        """Which chunks there are files of, good or bad."""
        return [bytes.fromhex(path.name) for path in self._chunks.glob("*/*")]

    def collect(self, named: Set[bytes], written_before: float) -> int:
        """Remove files that are not `named` and were last put before a time (Unix, seconds)."""
        unnamed = [each for each in self.hashes() if each not in named]
        return sum(self._removed(self._path(each), written_before) for each in unnamed)

    def usage(self) -> tuple[int, int]:
        """Capacity and usable free space, in bytes."""
        usage = shutil.disk_usage(self._chunks)
        return usage.total, max(usage.free - self._reserve_bytes, 0)

    def _claim(self, size: int) -> None:
        """Make sure that there is space for so many bytes."""
        if self._budget_bytes < size:
            left = _free_bytes(self._chunks) - self._reserve_bytes
            if left < size:
                raise _full()
            self._budget_bytes = min(left, _BUDGET_BYTES)
        self._budget_bytes -= size

    def _path(self, chunk_hash: bytes) -> str:
        name = chunk_hash.hex()
        return f"{self._chunks}/{name[:2]}/{name}"

    def _removed(self, path: str, written_before: float) -> bool:
        with self._collecting:
            try:
                if os.stat(path).st_mtime >= written_before:
                    return False
                os.unlink(path)
            except FileNotFoundError:  # it went to quarantine meanwhile
                return False
        return True


def _write_durably(temporary: str, path: str, parts: Sequence[bytes | memoryview]) -> None:
    # As few calls as can be: each gives up the interpreter's lock, and must win it again.
    descriptor = os.open(temporary, _DURABLE, 0o666)
    try:
        _write_all(descriptor, parts)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    _flush_folder(os.path.dirname(path))


def _write_all(descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
    left = [memoryview(part) for part in parts]
    while left:
        written = os.writev(descriptor, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _flush_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _full() -> ResourceExhaustedError:
    return ResourceExhaustedError(
        "the storage node's disk is full", hint="free space or add a storage node"
    )
