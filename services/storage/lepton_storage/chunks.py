"""Chunks of this node: checked against their hash whenever they come or go."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence, Set
from contextlib import suppress
from typing import NamedTuple, Protocol

import structlog

from lepton_ai.chunking import digest
from lepton_ai.errors import DataCorruptError, NotFoundError
from lepton_storage.batches import Batches
from lepton_storage.sealing import Sealer

__all__ = ["Chunks", "Engine"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.chunks")

# To hand a chunk to a thread costs as much as to write it, when it is small: some go together.
_SMALL_BYTES = 256 * 1024
_MAX_TOGETHER = 32
_WRITERS = 2


class _Write(NamedTuple):
    chunk_hash: bytes
    data: bytes | memoryview
    tenant: str


class Engine(Protocol):
    """Keeps the files of chunks, named by the chunks' hashes. It may block: threads call it."""

    def put(self, chunk_hash: bytes, parts: Sequence[bytes | memoryview]) -> None:
        """Keep a file in place of what was there; durable once this returns.

        Raises:
            ResourceExhaustedError: There is no space; nothing is kept.
        """
        ...

    def get(self, chunk_hash: bytes) -> bytes:
        """A file's content.

        Raises:
            NotFoundError: There is none.
            DataCorruptError: It cannot be read.
        """
        ...

    def renew(self, chunk_hash: bytes) -> bool:
        """Make a file that is there as young as a new one; whether it is there."""
        ...

    def set_aside(self, chunk_hash: bytes) -> None:
        """Take a bad file out of the way."""
        ...

    def has(self, chunk_hash: bytes) -> bool:
        """Whether there is a file, good or bad."""
        ...

    def hashes(self) -> list[bytes]:
        """Which chunks there are files of, good or bad."""
        ...

    def collect(self, named: Set[bytes], written_before: float) -> int:
        """Remove files that are not `named` and were last put before a time (Unix, seconds)."""
        ...

    def usage(self) -> tuple[int, int]:
        """Capacity and usable free space, in bytes."""
        ...


class Chunks:
    """What an engine keeps, sealed and verified. All file work happens in threads.

    Args:
        engine: Keeps the files.
        sealer: Knows how chunks lie in them.
    """

    def __init__(self, engine: Engine, sealer: Sealer) -> None:
        self._engine = engine
        self._sealer = sealer
        self._small: Batches[_Write, None] = Batches(
            self._write_small, at_once=_WRITERS, max_items=_MAX_TOGETHER, max_size=_SMALL_BYTES
        )

    async def write(self, chunk_hash: bytes, data: bytes | memoryview, tenant: str) -> None:
        """Keep `data`, durably once this returns. A good copy that is there already stays.

        Args:
            chunk_hash: Of the bytes.
            data: The bytes.
            tenant: Whose key encrypts it, where chunks are encrypted.

        Raises:
            DataCorruptError: `data` does not have that hash; nothing is kept.
            ResourceExhaustedError: There is no space; nothing is kept.
        """
        await self._sealer.ensure(tenant)
        write = _Write(chunk_hash, data, tenant)
        if len(data) < _SMALL_BYTES:
            await self._small.do(write, len(data))
        else:
            await asyncio.to_thread(self._write, write)

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

    async def _write_small(self, writes: Sequence[_Write]) -> list[Exception | None]:
        return await asyncio.to_thread(self._write_each, writes)

    def _write_each(self, writes: Sequence[_Write]) -> list[Exception | None]:
        outcomes: list[Exception | None] = []
        for write in writes:
            try:
                outcomes.append(self._write(write))
            except Exception as error:  # noqa: BLE001 - it is told to its own caller
                outcomes.append(error)
        return outcomes

    def _write(self, write: _Write) -> None:
        chunk_hash, data, tenant = write
        if digest(data) != chunk_hash:
            raise DataCorruptError("a chunk does not match its hash")
        if not self._has_good(chunk_hash):
            self._engine.put(chunk_hash, self._sealer.seal(tenant, chunk_hash, data))

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
