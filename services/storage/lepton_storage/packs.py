"""Small contents, many to a file: to make a file costs a disk more than to write a few kilobytes.

A pack is a file that only grows, ``packs/00000007``. A record in it is a head of 44 bytes and the
content:

| bytes | what |
|---|---|
| 4 | ``LPK1``, or ``gone`` once the record counts no longer |
| 4 | CRC-32 of the rest of the head |
| 4 | length of the content |
| 32 | name of the content: a hash |

Numbers are big endian. Of two records of one name, the later counts. Where the records are is kept
in memory, and read from the heads at the start; where a head is damaged, the search goes on for
the next. Each start begins a new pack, so whatever a crash left half written is followed by
nothing. A pack of which little counts is written anew, into the newest, and removed.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import structlog

from lepton_ai.errors import DataCorruptError, NotFoundError
from lepton_runtime.clock import Clock

__all__ = ["Packs"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.packs")
_PACK_BYTES = 64 * 1024 * 1024
_MOVED_AT_ONCE = 64
_COUNTS, _GONE = b"LPK1", b"gone"
_HEAD = struct.Struct(">4sII32s")
_CHECKED = struct.Struct(">I32s")
# A write returns once what it wrote is on the disk.
_DURABLE = os.O_WRONLY | os.O_APPEND | os.O_DSYNC


class _Place(NamedTuple):
    """Where a record lies, and how old it is."""

    pack: int
    offset: int
    length: int
    written_at: float


class _Newest(NamedTuple):
    """The pack that grows."""

    number: int
    size: int


class Packs:
    """Contents by the hashes that name them. Threads call it.

    Each takes some 300 bytes of memory, whatever its length.

    Args:
        folder: Made when it is missing.
        clock: Tells how old contents are.
        pack_bytes: A pack that is longer is followed by another.
    """

    def __init__(self, folder: Path, clock: Clock, pack_bytes: int = _PACK_BYTES) -> None:
        self._folder = folder
        self._clock = clock
        self._pack_bytes = pack_bytes
        self._places: dict[bytes, _Place] = {}
        self._newest: _Newest | None = None
        # Held by whatever changes places or appends.
        self._changing = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        self._numbers = itertools.count(found[-1] + 1 if found else 1)
        # How much counts in each pack.
        self._counting = dict.fromkeys(found, 0)
        for number in found:
            self._load(number)

    def put(self, contents: Mapping[bytes, bytes]) -> None:
        """Keep contents in place of what had their names; all are durable once this returns.

        Raises:
            OSError: The disk failed, or is full; none of them is kept.
        """
        with self._changing:
            self._append(contents, dict.fromkeys(contents, self._clock.now()))

    def get(self, name: bytes) -> bytes:
        """A content.

        Raises:
            NotFoundError: There is none.
            DataCorruptError: What lies there is another record, or none.
            OSError: It cannot be read.
        """
        record = self._read(name)
        if record[: _HEAD.size] != _head(name, len(record) - _HEAD.size):
            raise DataCorruptError("the head of a record is damaged", chunk=name.hex())
        return record[_HEAD.size :]

    def renew(self, name: bytes) -> bool:
        """Make a content that is there as young as a new one; whether it is there."""
        with self._changing:
            place = self._places.get(name)
            if place is not None:
                self._places[name] = place._replace(written_at=self._clock.now())
            return place is not None

    def has(self, name: bytes) -> bool:
        """Whether there is such a content, good or bad."""
        return name in self._places

    def names(self) -> list[bytes]:
        """The names of all contents, good or bad."""
        return list(self._places)

    def set_aside(self, name: bytes, path: Path) -> bool:
        """Move a content, as it lies there, to a file; whether it was there."""
        with self._changing, contextlib.suppress(NotFoundError):
            path.write_bytes(self._as_it_is(name))
            self._forget(name)
            return True
        return False

    def collect(self, named: Set[bytes], written_before: float) -> int:
        """Remove what is not `named` and was last put before a time (Unix, seconds).

        Returns:
            How many.
        """
        unnamed = [name for name in self.names() if name not in named]
        removed = sum(self._removed(name, written_before) for name in unnamed)
        for number in self._wasteful():
            try:
                self._move(number)
            except OSError as error:  # it stays until the disk can be read and written again
                _log.error("pack_not_moved", pack=number, error=error.strerror)
        return removed

    def _load(self, number: int) -> None:
        """Learn what a pack has, as if it had been written now: renewals are not on the disk."""
        now, path = self._clock.now(), self._path(number)
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for name, offset, length in _records(data, path):
                    self._place(name, _Place(number, offset, length, now))

    def _place(self, name: bytes, place: _Place) -> None:
        former = self._places.get(name)
        if former is not None:
            self._counting[former.pack] -= former.length
        self._places[name] = place
        self._counting[place.pack] += place.length

    def _append(self, contents: Mapping[bytes, bytes], times: Mapping[bytes, float]) -> None:
        pack = self._open()
        data = b"".join(_encoded(contents))
        # Where it fails, the pack ends: nobody knows what of it is on the disk.
        self._newest = None
        _append_durably(self._path(pack.number), data, pack.size)
        self._newest = _Newest(pack.number, pack.size + len(data))
        offset = pack.size
        for name, content in contents.items():
            self._place(name, _Place(pack.number, offset, len(content), times[name]))
            offset += _HEAD.size + len(content)

    def _open(self) -> _Newest:
        """The pack to write to, which may be a new one."""
        if self._newest is not None and self._newest.size < self._pack_bytes:
            return self._newest
        number = next(self._numbers)
        with self._path(number).open("xb"):
            flush_folder(self._folder)
        self._counting[number] = 0
        return _Newest(number, 0)

    def _read(self, name: bytes) -> bytes:
        """A record. Its pack may be removed once it has been written anew elsewhere."""
        while True:
            place = self._places.get(name)
            if place is None:
                raise NotFoundError("the chunk is not on this node", chunk=name.hex())
            try:
                return _read_at(self._path(place.pack), place.offset, _HEAD.size + place.length)
            except FileNotFoundError:
                if self._places.get(name) is place:
                    raise

    def _as_it_is(self, name: bytes) -> bytes:
        """A content, good or bad; nothing where it cannot be read."""
        try:
            return self._read(name)[_HEAD.size :]
        except OSError as error:
            _log.error("disk_unreadable", chunk=name.hex(), error=error.strerror)
            return b""

    def _forget(self, name: bytes) -> None:
        """A record counts no longer, also after another start."""
        place = self._places.pop(name)
        self._counting[place.pack] -= place.length
        with contextlib.suppress(FileNotFoundError), self._path(place.pack).open("r+b") as file:
            os.pwrite(file.fileno(), _GONE, place.offset)

    def _removed(self, name: bytes, written_before: float) -> bool:
        with self._changing:
            place = self._places.get(name)
            if place is None or place.written_at >= written_before:
                return False
            self._forget(name)
        return True

    def _wasteful(self) -> list[int]:
        """Packs that are to be removed: less than half of a whole one counts, and none grows."""
        with self._changing:
            newest = self._newest.number if self._newest else 0
            little = self._pack_bytes // 2
            found = [n for n, size in self._counting.items() if n != newest and size < little]
            # Those with nothing come first: on a full disk, they make space for the others.
            return sorted(found, key=self._counting.__getitem__)

    def _move(self, number: int) -> None:
        """Write what counts in a pack anew, and remove it. What is damaged stays so."""
        names = [name for name, place in list(self._places.items()) if place.pack == number]
        for start in range(0, len(names), _MOVED_AT_ONCE):
            with self._changing:
                self._move_some(number, names[start : start + _MOVED_AT_ONCE])
        with self._changing:
            del self._counting[number]
        self._path(number).unlink()

    def _move_some(self, number: int, names: Sequence[bytes]) -> None:
        places = {name: self._places[name] for name in names if name in self._places}
        contents = {
            name: self._read(name)[_HEAD.size :]
            for name, place in places.items()
            if place.pack == number
        }
        if contents:
            self._append(contents, {name: places[name].written_at for name in contents})

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}"


def flush_folder(folder: Path | str) -> None:
    """Have the names of a folder's files on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _head(name: bytes, length: int) -> bytes:
    return _HEAD.pack(_COUNTS, zlib.crc32(_CHECKED.pack(length, name)), length, name)


def _encoded(contents: Mapping[bytes, bytes]) -> Iterator[bytes]:
    for name, content in contents.items():
        yield _head(name, len(content))
        yield content


def _records(data: mmap.mmap, path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Name, offset and length of each record that counts."""
    offset = 0
    while offset + _HEAD.size <= len(data):
        mark, check, length, name = _HEAD.unpack_from(data, offset)
        end = offset + _HEAD.size + length
        whole = check == zlib.crc32(_CHECKED.pack(length, name)) and end <= len(data)
        if whole and mark == _COUNTS:
            yield name, offset, length
        elif not whole:
            _log.warning("pack_damaged", path=str(path), offset=offset)
            end = data.find(_COUNTS, offset + 1)
            if end < 0:
                return
        offset = end


def _append_durably(path: Path, data: bytes, size: int) -> None:
    """Write at the end of a file that has that size; where it fails, it has it still."""
    descriptor = os.open(path, _DURABLE)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
    finally:
        os.close(descriptor)


def _read_at(path: Path, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
