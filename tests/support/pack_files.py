"""Packs as they lie on a disk, read by what their documentation says of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HEAD_BYTES", "PackedRecord", "records_below", "records_of"]

HEAD_BYTES = 44


@dataclass(frozen=True)
class PackedRecord:
    """A record that counts: its bytes are `start` up to `stop` of the file."""

    path: Path
    start: int
    stop: int
    name: bytes
    content: bytes

    def flip(self, bit: int) -> None:
        """Turn a bit of it over, counted from its first."""
        with self.path.open("r+b") as file:
            file.seek(self.start + bit // 8)
            [byte] = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1 << bit % 8]))


def records_of(path: Path) -> Iterator[PackedRecord]:
    """The records of a pack in which nothing is damaged."""
    data, start = path.read_bytes(), 0
    while start < len(data):
        mark, _, length, name = struct.unpack_from(">4sII32s", data, start)
        stop = start + HEAD_BYTES + length
        if mark == b"LPK1":
            yield PackedRecord(path, start, stop, name, data[start + HEAD_BYTES : stop])
        start = stop


def records_below(folder: Path) -> dict[bytes, PackedRecord]:
    """Those that count of all packs of a node, by name."""
    paths = sorted((folder / "packs").iterdir())
    return {record.name: record for path in paths for record in records_of(path)}
