"""Chunks of this node: checked against their hash whenever they come or go."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence, Set
from contextlib import suppress
from typing import NamedTuple, Protocol

import structlog

from lepton_ai.chunking import digest
from lepton_ai.errors import DataCorruptError, NotFoundError
from lepton_storage.batches import Batches
from lepton_storage.sealing import Sealer

__all__ = ["SMALL_BYTES", "Chunks", "Content", "Engine", "Write"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.chunks")

SMALL_BYTES = 256 * 1024
"""To carry a smaller chunk costs more than its bytes do: some go together."""

_MAX_TOGETHER = 64

Content = Sequence[bytes | memoryview]
"""What an engine keeps, in parts."""


class Write(NamedTuple):
    """A chunk to keep.

    Attributes:
        chunk_hash: Of the bytes.
        data: The bytes.
        tenant: Whose key encrypts it, where chunks are encrypted.
    """

    chunk_hash: bytes
    data: bytes | memoryview
    tenant: str


class Engine(Protocol):
    """Keeps the contents of chunks by the chunks' hashes. It may block: threads call it."""

    def put(self, contents: Mapping[bytes, Content]) -> None:
        """Keep contents in place of what was there; all are durable once this returns.

        Raises:
            ResourceExhaustedError: There is no space.
        """
        ...

    def get(self, chunk_hash: bytes) -> bytes:
        """A content.

        Raises:
            NotFoundError: There is none.
            DataCorruptError: It cannot be read.
        """
        ...

    def renew(self, chunk_hash: bytes) -> bool:
        """Make a content that is there as young as a new one; whether it is there."""
        ...

    def set_aside(self, chunk_hash: bytes) -> None:
        """Take a bad content out of the way."""
        ...

    def has(self, chunk_hash: bytes) -> bool:
        """Whether there is a content, good or bad."""
        ...

    def hashes(self) -> list[bytes]:
        """Which chunks there are contents of, good or bad."""
        ...

    def collect(self, named: Set[bytes], written_before: float) -> int:
        """Remove what is not `named` and was last put before a time (Unix, seconds)."""
        ...

    def usage(self) -> tuple[int, int]:
        """Capacity and usable free space, in bytes."""
        ...


class Chunks:
    """What an engine keeps, sealed and verified. All file work happens in threads.

    Args:
        engine: Keeps their contents.
        sealer: Knows what a chunk becomes there.
    """

    def __init__(self, engine: Engine, sealer: Sealer) -> None:
        self._engine = engine
        self._sealer = sealer
        self._small: Batches[Sequence[Write], None] = Batches(
            self._write_small, at_once=1, max_items=_MAX_TOGETHER, max_size=SMALL_BYTES
        )

    async def write(self, chunk_hash: bytes, data: bytes | memoryview, tenant: str) -> None:
        """Keep one chunk; as `write_all`."""
        await self.write_all([Write(chunk_hash, data, tenant)])

    async def write_all(self, writes: Sequence[Write]) -> None:
        """Keep chunks, durably once this returns. Good copies that are there already stay.

        Raises:
            DataCorruptError: Bytes do not have their hash; none of these chunks is kept.
            ResourceExhaustedError: There is no space.
        """
        for tenant in {write.tenant for write in writes}:
            await self._sealer.ensure(tenant)
        size = sum(len(write.data) for write in writes)
        if size < SMALL_BYTES:
            await self._small.do(writes, size)
        else:
            await asyncio.to_thread(self._write, writes)

    async def read(self, chunk_hash: bytes) -> memoryview:
        """The chunk's bytes, checked against its hash.

        Raises:
            NotFoundError: There is no copy here.
            DataCorruptError: The copy was bad; it is now out of the way.
        """
        return await asyncio.to_thread(self._read, chunk_hash)

    async def good(self, chunk_hashes: Collection[bytes]) -> set[bytes]:
        """Those of which there is a good copy here; these are young now, so that none goes soon."""
        return await asyncio.to_thread(self._good, chunk_hashes)

    async def verify(self, chunk_hashes: Collection[bytes]) -> tuple[set[bytes], set[bytes]]:
        """Those of which the copy here is good, and those of which it was bad."""
        return await asyncio.to_thread(self._verify, chunk_hashes)

    async def missing(self, chunk_hashes: Collection[bytes]) -> set[bytes]:
        """Those of which there is no copy here, good or bad."""
        return await asyncio.to_thread(self._missing, chunk_hashes)

    async def hashes(self) -> list[bytes]:
        """What there is a copy of here, good or bad."""
        return await asyncio.to_thread(self._engine.hashes)

    async def collect(self, named: Set[bytes], written_before: float) -> int:
        """Remove chunks that are not `named` and were last put before a time (Unix, seconds).

        Returns:
            How many.
        """
        return await asyncio.to_thread(self._engine.collect, named, written_before)

    async def usage(self) -> tuple[int, int]:
        """Capacity and usable free space, in bytes."""
        return await asyncio.to_thread(self._engine.usage)

    async def _write_small(self, batch: Sequence[Sequence[Write]]) -> list[Exception | None]:
        return await asyncio.to_thread(self._write_each, batch)

    def _write_each(self, batch: Sequence[Sequence[Write]]) -> list[Exception | None]:
        """All in one, or what is wrong with each where something is."""
        try:
            self._write([write for writes in batch for write in writes])
        except DataCorruptError:
            return [self._tried(writes) for writes in batch]
        return [None] * len(batch)

    def _tried(self, writes: Sequence[Write]) -> Exception | None:
        try:
            self._write(writes)
        except Exception as error:  # noqa: BLE001 - it is told to its own caller
            return error
        return None

    def _write(self, writes: Sequence[Write]) -> None:
        if any(digest(write.data) != write.chunk_hash for write in writes):
            raise DataCorruptError("a chunk does not match its hash")
        wanted = [write for write in writes if not self._has_good(write.chunk_hash)]
        self._engine.put({write.chunk_hash: self._sealed(write) for write in wanted})

    def _sealed(self, write: Write) -> Content:
        return self._sealer.seal(write.tenant, write.chunk_hash, write.data)

    def _read(self, chunk_hash: bytes) -> memoryview:
        try:
            data = self._sealer.open(chunk_hash, self._engine.get(chunk_hash))
        except DataCorruptError:
            data = None
        if data is None or digest(data) != chunk_hash:
            _log.error("bad_copy", chunk=chunk_hash.hex())
            self._engine.set_aside(chunk_hash)
            raise DataCorruptError("the copy on this node is bad", chunk=chunk_hash.hex())
        return data

    def _has_good(self, chunk_hash: bytes) -> bool:
        with suppress(NotFoundError):  # it was removed meanwhile
            return self._engine.renew(chunk_hash) and self._is_good(chunk_hash)
        return False

    def _is_good(self, chunk_hash: bytes) -> bool:
        try:
            self._read(chunk_hash)
        except DataCorruptError:
            return False
        return True

    def _verify(self, chunk_hashes: Collection[bytes]) -> tuple[set[bytes], set[bytes]]:
        good, bad = set[bytes](), set[bytes]()
        for chunk_hash in chunk_hashes:
            with suppress(NotFoundError):  # it was removed meanwhile
                (good if self._is_good(chunk_hash) else bad).add(chunk_hash)
        return good, bad

    def _good(self, chunk_hashes: Collection[bytes]) -> set[bytes]:
        return {each for each in chunk_hashes if self._has_good(each)}

    def _missing(self, chunk_hashes: Collection[bytes]) -> set[bytes]:
        return {each for each in chunk_hashes if not self._engine.has(each)}
