"""Objects: received, kept on several nodes, then named by a manifest; and read back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from blake3 import blake3

from lepton_ai.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from lepton_ai.proto.v1.storage_pb2 import Chunk, Object, PutObjectHeader
from lepton_runtime.clock import Clock
from lepton_storage.chunking import Chunker, Slice, check_object_id, digest, slices
from lepton_storage.copies import Copies
from lepton_storage.manifests import Manifests
from lepton_storage.peers import PART_BYTES, Members
from lepton_storage.pipeline import in_order

__all__ = ["DEFAULT_REPLICATION", "MAX_REPLICATION", "ObjectStore"]

DEFAULT_REPLICATION = 2
MAX_REPLICATION = 5
# Memory of an upload or a download is at most this many chunks and the one being collected.
_WINDOW = 2
_UPLOADS_AT_ONCE = 16
_SILENCE_S = 60.0


class ObjectStore:
    """Objects of the whole cluster as this node sees them.

    Args:
        copies: Chunks here and on other nodes.
        manifests: What is visible.
        members: Nodes that live.
        clock: Tells when an object was made.
        max_object_bytes: Larger objects are refused.
    """

    def __init__(
        self,
        copies: Copies,
        manifests: Manifests,
        members: Members,
        clock: Clock,
        max_object_bytes: int,
    ) -> None:
        self._copies = copies
        self._manifests = manifests
        self._members = members
        self._clock = clock
        self._max_object_bytes = max_object_bytes
        self._uploads = asyncio.Semaphore(_UPLOADS_AT_ONCE)

    async def put(
        self, header: PutObjectHeader, parts: AsyncIterator[bytes], tenant: str
    ) -> Object:
        """Store an object. Nothing of it is visible until every chunk has its copies.

        Raises:
            InvalidArgumentError: The header is wrong, or the content is not what it announced.
            ResourceExhaustedError: It is too large, or the nodes are full.
            UnavailableError: Too few nodes could keep it.
        """
        self._check(header)
        wanted = header.replication or DEFAULT_REPLICATION
        count = await self._copies_now(header.replication)
        upload = _Upload(self._max_object_bytes)
        async with self._uploads:
            steps = self._steps(upload.chunks(parts), count)
            chunks = [chunk async for chunk in in_order(steps, _WINDOW)]
        manifest = Object(
            id=upload.object_id, size_bytes=upload.size_bytes, chunks=chunks, tenant=tenant
        )
        _check_announced(header, manifest)
        manifest.replication = wanted
        manifest.created_at.FromNanoseconds(int(self._clock.now() * 1e9))
        return await self._manifests.add(manifest)

    async def stat(self, object_id: str) -> Object:
        """The manifest of an object; raises as `Manifests.get`."""
        return await self._manifests.get(object_id)

    async def delete(self, object_id: str) -> None:
        """Forget an object. Its chunks go once they are old and no object has them.

        Raises:
            InvalidArgumentError: That is no object's id.
        """
        await self._manifests.remove(object_id)

    async def get(self, object_id: str, offset: int = 0, length: int = 0) -> AsyncIterator[bytes]:
        """The bytes of an object or of a range, in parts of at most 1 MiB, all verified.

        Raises:
            InvalidArgumentError: That is no id, or the range is not in the object.
            NotFoundError: No such object is stored.
            DataCorruptError: No living node has a good copy of some chunk.
        """
        manifest = await self._manifests.get(object_id)
        wanted = slices(manifest.chunks, offset, length)
        async with contextlib.aclosing(in_order(self._reads(wanted), _WINDOW)) as pieces:
            async for piece in pieces:
                for start in range(0, len(piece), PART_BYTES):
                    yield bytes(piece[start : start + PART_BYTES])

    async def _steps(
        self, chunks: AsyncIterator[bytes], count: int
    ) -> AsyncIterator[Coroutine[Any, Any, Chunk]]:
        async for data in chunks:
            yield self._keep(data, count)

    async def _keep(self, data: bytes, count: int) -> Chunk:
        chunk = Chunk(hash=await asyncio.to_thread(digest, data), size_bytes=len(data))
        chunk.nodes.extend(await self._copies.make(chunk, data, count))
        return chunk

    async def _reads(self, wanted: list[Slice]) -> AsyncIterator[Coroutine[Any, Any, memoryview]]:
        for part in wanted:
            yield self._read(part)

    async def _read(self, part: Slice) -> memoryview:
        data = await self._copies.find(part.chunk)
        return memoryview(data)[part.start : part.stop]

    def _check(self, header: PutObjectHeader) -> None:
        if header.expected_id:
            check_object_id(header.expected_id)
        if not 0 <= header.replication <= MAX_REPLICATION:
            raise InvalidArgumentError(
                f"replication is {header.replication}",
                hint=f"1 to {MAX_REPLICATION}, or 0 for {DEFAULT_REPLICATION}",
            )
        if header.size_bytes > self._max_object_bytes:
            raise _too_large(self._max_object_bytes)

    async def _copies_now(self, asked: int) -> int:
        """How many copies an acknowledgement takes: a default yields to a small cluster."""
        if len(self._members.nodes) < (asked or DEFAULT_REPLICATION):
            await self._members.refresh()
        living = len(self._members.nodes)
        if asked > living:
            raise UnavailableError(
                f"{asked} copies are wanted and {living} storage nodes are alive",
                hint="ask for fewer copies or add storage nodes",
            )
        return asked or max(min(DEFAULT_REPLICATION, living), 1)


class _Upload:
    """What is known of an object while it arrives."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._hash = blake3()
        self.size_bytes = 0

    @property
    def object_id(self) -> str:
        """The id of what has arrived."""
        return f"b3-{self._hash.hexdigest()}"

    async def chunks(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Complete chunks as they arrive."""
        chunker = Chunker()
        while (part := await _next_part(parts)) is not None:
            self.size_bytes += len(part)
            if self.size_bytes > self._max_bytes:
                raise _too_large(self._max_bytes)
            for data in chunker.add(part):
                yield await self._counted(data)
        for data in chunker.rest():
            yield await self._counted(data)

    async def _counted(self, data: bytes) -> bytes:
        await asyncio.to_thread(self._hash.update, data)
        return data


async def _next_part(parts: AsyncIterator[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(_SILENCE_S):
            return await anext(parts, None)
    except TimeoutError:
        raise DeadlineExceededError(f"nothing was sent for {_SILENCE_S:.0f} s") from None


def _check_announced(header: PutObjectHeader, manifest: Object) -> None:
    if header.size_bytes >= 0 and header.size_bytes != manifest.size_bytes:
        raise InvalidArgumentError(
            f"{manifest.size_bytes} bytes came where {header.size_bytes} were announced"
        )
    if header.expected_id and header.expected_id != manifest.id:
        raise InvalidArgumentError(
            f"the content is {manifest.id}, not {header.expected_id}",
            hint="it was changed or cut short on its way; nothing was stored",
        )


def _too_large(limit: int) -> ResourceExhaustedError:
    return ResourceExhaustedError("the object is too large", hint=f"at most {limit} bytes")
