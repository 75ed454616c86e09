"""How content is cut into chunks, and what chunks and objects are called.

A chunk is named by the BLAKE3 hash of its bytes. An object is named by a hash of its size and its
chunks' hashes in order: whoever has a manifest can check it against the id without the content,
and every chunk against the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1.storage_pb2 import Chunk

__all__ = [
    "CHUNK_BYTES",
    "HASH_BYTES",
    "Slice",
    "check_object_id",
    "digest",
    "id_of_file",
    "object_id",
    "slices",
    "spans",
]

CHUNK_BYTES = 4 * 1024 * 1024
HASH_BYTES = 32
_CONTEXT = "lepton-ai object id, version 1"
_OBJECT_ID = re.compile(r"b3-[0-9a-f]{64}")


@dataclass(frozen=True)
class Slice:
    """The bytes from `start` up to `stop` of one chunk."""

    chunk: Chunk
    start: int
    stop: int

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the chunk."""
        return self.stop - self.start == self.chunk.size_bytes


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """The BLAKE3 hash of a chunk: `HASH_BYTES` long."""
    return blake3(data).digest()


def object_id(chunks: Iterable[Chunk]) -> str:
    """The id of the object that these chunks make up.

    Example:
        >>> object_id([])[:7]
        'b3-1851'
    """
    hasher, size = blake3(derive_key_context=_CONTEXT), 0
    for chunk in chunks:
        hasher.update(chunk.hash)
        size += chunk.size_bytes
    hasher.update(size.to_bytes(8, "little"))
    return f"b3-{hasher.hexdigest()}"


def id_of_file(path: Path) -> str:
    """The id of the object that a file's content is."""
    with path.open("rb") as file:
        parts = iter(lambda: file.read(CHUNK_BYTES), b"")
        return object_id(Chunk(hash=digest(part), size_bytes=len(part)) for part in parts)


def check_object_id(text: str) -> str:
    """Return `text` when it has the form of an object's id.

    Raises:
        InvalidArgumentError: It has not.
    """
    if _OBJECT_ID.fullmatch(text):
        return text
    raise InvalidArgumentError(
        f"{text[:80]!r} is not an object's id", hint="'b3-' and 64 hexadecimal digits"
    )


def spans(size_bytes: int) -> list[tuple[int, int]]:
    """Where each chunk of so much content begins and ends."""
    return [
        (start, min(start + CHUNK_BYTES, size_bytes)) for start in range(0, size_bytes, CHUNK_BYTES)
    ]


def slices(chunks: Sequence[Chunk], offset: int, length: int) -> list[Slice]:
    """The parts of chunks that make up `length` bytes from `offset`.

    Raises:
        InvalidArgumentError: The range is not within the object.
    """
    size = sum(chunk.size_bytes for chunk in chunks)
    if offset < 0 or length < 0 or offset + length > size:
        raise InvalidArgumentError(
            f"bytes {offset} to {offset + length} are not in the object",
            hint=f"it has {size} bytes",
        )
    return list(_overlaps(chunks, offset, offset + length))


def _overlaps(chunks: Sequence[Chunk], begin: int, end: int) -> Iterator[Slice]:
    position = 0
    for chunk in chunks:
        start, stop = max(begin - position, 0), min(end - position, chunk.size_bytes)
        if start < stop:
            yield Slice(chunk, start, stop)
        position += chunk.size_bytes
