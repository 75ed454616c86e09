"""Chunks on a disk. What was written is there after a power cut.

Small ones share files (`Packs`). A larger one's file is ``chunks/ab/abcd…``, named by its hash.
It is written beside its place, flushed, renamed, and its folder flushed: at every moment a name
has either no content or the right one, but for what the disk itself spoils. What is spoilt moves
to ``quarantine`` for a person to see.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import threading
import uuid
from collections.abc import Mapping, Set
from pathlib import Path

import structlog

from lepton_ai.errors import DataCorruptError, NotFoundError, ResourceExhaustedError
from lepton_runtime.clock import Clock
from lepton_storage.chunks import Content
from lepton_storage.packs import Packs, flush_folder

__all__ = ["Disk"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.disk")
_BUDGET_BYTES = 16 * 1024 * 1024
# A write returns once what it wrote is on the disk.
_DURABLE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DSYNC
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """An `Engine` below a folder.

    Args:
        folder: Made when it is missing; what an earlier crash left unfinished is removed.
        reserve_bytes: Free space that is never used.
        packed_bytes: Contents up to this long share files.
        clock: Tells how old those are.
    """

    def __init__(
        self, folder: Path, *, reserve_bytes: int, packed_bytes: int, clock: Clock
    ) -> None:
        self._chunks = folder / "chunks"
        self._unfinished = folder / "unfinished"
        self._number = itertools.count()
        self._quarantine = folder / "quarantine"
        self._reserve_bytes = reserve_bytes
        self._packed_bytes = packed_bytes
        # Known to be free when it was last looked: small chunks need no look each.
        self._budget_bytes = 0
        # A chunk may not be renewed between the look at its age and its removal.
        self._collecting = threading.Lock()
        shutil.rmtree(self._unfinished, ignore_errors=True)
        for place in (self._chunks, self._unfinished, self._quarantine):
            place.mkdir(parents=True, exist_ok=True)
        self._packs = Packs(folder / "packs", clock)
        flush_folder(folder)

    def put(self, contents: Mapping[bytes, Content]) -> None:
        """Keep contents in place of what was there; all are durable once this returns.

        Raises:
            ResourceExhaustedError: The disk is full.
        """
        sizes = {chunk_hash: sum(map(len, parts)) for chunk_hash, parts in contents.items()}
        self._claim(sum(sizes.values()))
        small = {each for each, size in sizes.items() if size <= self._packed_bytes}
        try:
            if small:
                self._packs.put({each: b"".join(contents[each]) for each in small})
            for each in contents.keys() - small:
                self._put_file(each, contents[each])
        except OSError as error:
            raise (_full() if error.errno in _FULL else error) from None

    def get(self, chunk_hash: bytes) -> bytes:
        """A content.

        Raises:
            NotFoundError: There is none.
            DataCorruptError: It cannot be read.
        """
        try:
            if self._packs.has(chunk_hash):
                return self._packs.get(chunk_hash)
            return self._get_file(chunk_hash)
        except OSError as error:
            _log.error("disk_unreadable", chunk=chunk_hash.hex(), error=error.strerror)
            raise DataCorruptError("the disk cannot read it", chunk=chunk_hash.hex()) from None

    def renew(self, chunk_hash: bytes) -> bool:
        """Make a content that is there as young as a new one; whether it is there."""
        if self._packs.renew(chunk_hash):
            return True
        with self._collecting:
            try:
                os.utime(self._path(chunk_hash))
            except FileNotFoundError:
                return False
            return True

    def set_aside(self, chunk_hash: bytes) -> None:
        """Take a bad content out of the way."""
        aside = self._quarantine / f"{chunk_hash.hex()}-{uuid.uuid4().hex[:8]}"
        if self._packs.set_aside(chunk_hash, aside):
            return
        with contextlib.suppress(FileNotFoundError):  # another reader did
            os.replace(self._path(chunk_hash), aside)

    def has(self, chunk_hash: bytes) -> bool:
        """Whether there is a content, good or bad."""
        return self._packs.has(chunk_hash) or os.path.exists(self._path(chunk_hash))

    def hashes(self) -> list[bytes]:
        """Which chunks there are contents of, good or bad."""
        return list(dict.fromkeys([*self._packs.names(), *self._files()]))

    def collect(self, named: Set[bytes], written_before: float) -> int:
        """Remove what is not `named` and was last put before a time (Unix, seconds)."""
        unnamed = [each for each in self._files() if each not in named]
        removed = sum(self._removed(self._path(each), written_before) for each in unnamed)
        return removed + self._packs.collect(named, written_before)

    def usage(self) -> tuple[int, int]:
        """Capacity and usable free space, in bytes."""
        usage = shutil.disk_usage(self._chunks)
        return usage.total, max(usage.free - self._reserve_bytes, 0)

    def _put_file(self, chunk_hash: bytes, parts: Content) -> None:
        temporary, path = f"{self._unfinished}/{next(self._number)}", self._path(chunk_hash)
        try:
            self._ensure_folder(os.path.dirname(path))
            _write_durably(temporary, path, parts)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def _ensure_folder(self, folder: str) -> None:
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            flush_folder(self._chunks)

    def _get_file(self, chunk_hash: bytes) -> bytes:
        try:
            with open(self._path(chunk_hash), "rb", buffering=0) as file:
                return file.read()
        except FileNotFoundError:
            raise NotFoundError("the chunk is not on this node", chunk=chunk_hash.hex()) from None

    def _files(self) -> list[bytes]:
        return [bytes.fromhex(path.name) for path in self._chunks.glob("*/*")]

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


def _write_durably(temporary: str, path: str, parts: Content) -> None:
    descriptor = os.open(temporary, _DURABLE, 0o666)
    try:
        _write_all(descriptor, parts)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    flush_folder(os.path.dirname(path))


def _write_all(descriptor: int, parts: Content) -> None:
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


def _full() -> ResourceExhaustedError:
    return ResourceExhaustedError(
        "the storage node's disk is full", hint="free space or add a storage node"
    )
