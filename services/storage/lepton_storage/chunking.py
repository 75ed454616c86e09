"""How an object is cut into chunks, what they are called, and which of them a range needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1.storage_pb2 import Chunk

__all__ = ["CHUNK_BYTES", "Chunker", "Slice", "check_object_id", "digest", "slices"]

CHUNK_BYTES = 4 * 1024 * 1024
_OBJECT_ID = re.compile(r"b3-[0-9a-f]{64}")


@dataclass(frozen=True)
class Slice:
    """The bytes from `start` up to `stop` of one chunk."""

    chunk: Chunk
    start: int
    stop: int


class Chunker:
    """Collects parts of any size into chunks of `CHUNK_BYTES`, the last one shorter."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, part: bytes) -> Iterator[bytes]:
        """Take the next bytes; the chunks that are now complete."""
        self._buffer += part
        while len(self._buffer) >= CHUNK_BYTES:
            yield bytes(self._buffer[:CHUNK_BYTES])
            del self._buffer[:CHUNK_BYTES]

    def rest(self) -> Iterator[bytes]:
        """What is left at the end, if anything."""
        if self._buffer:
            yield bytes(self._buffer)
            self._buffer.clear()


def digest(data: bytes) -> bytes:
    """The BLAKE3 hash of a chunk, 32 bytes."""
    return blake3(data).digest()


def check_object_id(object_id: str) -> str:
    """Return `object_id` when it has the form of one.

    Raises:
        InvalidArgumentError: It has not.
    """
    if _OBJECT_ID.fullmatch(object_id):
        return object_id
    raise InvalidArgumentError(
        f"{object_id[:80]!r} is not an object's id", hint="'b3-' and 64 hexadecimal digits"
    )


def slices(chunks: Sequence[Chunk], offset: int, length: int) -> list[Slice]:
    """The parts of chunks that make up `length` bytes from `offset`; a length of 0 means all.

    Raises:
        InvalidArgumentError: The range is not within the object.
    """
    size = sum(chunk.size_bytes for chunk in chunks)
    if offset < 0 or length < 0 or offset + length > size:
        raise InvalidArgumentError(
            f"bytes {offset} to {offset + length} are not in the object",
            hint=f"it has {size} bytes",
        )
    end = offset + length if length else size
    return list(_overlaps(chunks, offset, end))


def _overlaps(chunks: Sequence[Chunk], begin: int, end: int) -> Iterator[Slice]:
    position = 0
    for chunk in chunks:
        start, stop = max(begin - position, 0), min(end - position, chunk.size_bytes)
        if start < stop:
            yield Slice(chunk, start, stop)
        position += chunk.size_bytes
