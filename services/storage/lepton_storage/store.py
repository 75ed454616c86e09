"""Objects: chunks that have their copies, then a manifest that names them; and read back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from lepton_ai.chunking import CHUNK_BYTES, HASH_BYTES, check_object_id, digest, object_id, slices
from lepton_ai.errors import InvalidArgumentError, ResourceExhaustedError
from lepton_ai.proto.v1.storage_pb2 import (
    Chunk,
    CommitObjectRequest,
    CommitObjectResponse,
    MissingChunk,
    Object,
    ObjectPlaces,
)
from lepton_runtime.clock import Clock
from lepton_runtime.state import Condition, Operation
from lepton_storage.copies import Copies
from lepton_storage.manifests import Manifests
from lepton_storage.quotas import Quotas
from lepton_storage.shared import SharedCopies

__all__ = ["MAX_REPLICATION", "ObjectStore"]

MAX_REPLICATION = 5
_SMALL_BYTES = 256 * 1024


class ObjectStore:
    """Objects of the whole cluster as this node sees them.

    Args:
        copies: Chunks here and on other nodes.
        manifests: What is visible.
        addresses: Where the data planes of nodes that have chunks are, by node.
        quotas: How much tenants may store.
        clock: Tells when an object was made.
        max_object_bytes: Larger objects are refused.
    """

    def __init__(
        self,
        *,
        copies: Copies | SharedCopies,
        manifests: Manifests,
        addresses: Callable[[], Mapping[str, str]],
        quotas: Quotas,
        clock: Clock,
        max_object_bytes: int,
    ) -> None:
        self._copies = copies
        self._manifests = manifests
        self._addresses = addresses
        self._quotas = quotas
        self._clock = clock
        self._max_object_bytes = max_object_bytes

    async def keep(
        self, chunk_hash: bytes, data: bytes, tenant: str, replication: int = 0
    ) -> Chunk:
        """Put a chunk on as many nodes as it should be on; durable there once this returns.

        Raises:
            InvalidArgumentError: The bytes do not have that hash.
            ResourceExhaustedError: The nodes are full.
            UnavailableError: Too few nodes could keep it.
        """
        if await _digest(data) != chunk_hash:
            raise InvalidArgumentError(
                "the bytes do not have the hash they are sent under",
                hint="they were changed on their way; nothing was stored",
                chunk=chunk_hash.hex(),
            )
        chunk = Chunk(hash=chunk_hash, size_bytes=len(data))
        count = await self._copies.count(replication)
        chunk.nodes.extend(await self._copies.make(chunk, data, tenant, count))
        return chunk

    async def commit(self, request: CommitObjectRequest, tenant: str) -> CommitObjectResponse:
        """Make an object visible, if every chunk has its copies; else tell which have not.

        Raises:
            InvalidArgumentError: The request is wrong, or the content is not what it announced.
            ResourceExhaustedError: It is too large, a quota is used up, or the nodes are full.
            UnavailableError: Too few nodes could keep it.
        """
        manifest = await self._announced(request)
        manifest.tenant = tenant
        self._quotas.check(tenant, manifest.size_bytes)
        count = await self._copies.count(request.replication)
        if request.content:
            [chunk] = manifest.chunks
            chunk.nodes[:] = await self._copies.make(chunk, request.content, tenant, count)
        elif missing := await self._missing(manifest, count):
            return CommitObjectResponse(missing=missing)
        manifest.created_at.FromNanoseconds(int(self._clock.now() * 1e9))
        stored = await self._manifests.add(manifest)
        self._quotas.count(tenant, manifest.size_bytes)
        return CommitObjectResponse(object=stored)

    async def places(self, wanted: str) -> ObjectPlaces:
        """Where an object's chunks can be had; raises as `Manifests.get`."""
        return ObjectPlaces(object=await self.stat(wanted), addresses=self._addresses())

    async def stat(self, wanted: str) -> Object:
        """The manifest of an object; raises as `Manifests.get`."""
        return await self._manifests.get(wanted)

    async def pins(self, object_ids: Iterable[str]) -> list[tuple[Condition, Operation]]:
        """What a commit needs that begins to name objects; raises as `Manifests.pins`."""
        return await self._manifests.pins(object_ids)

    async def delete(self, wanted: str) -> None:
        """Forget an object. Its chunks go once they are old and no object has them.

        Raises:
            InvalidArgumentError: That is no object's id.
        """
        await self._manifests.remove(wanted)

    async def chunk(self, chunk_hash: bytes) -> memoryview:
        """A chunk's bytes, wherever there is a good copy; raises as `Copies.find`."""
        return await self._copies.find(Chunk(hash=chunk_hash))

    async def read(self, wanted: str, offset: int, length: int) -> bytes:
        """A part of an object, for looking into it; it is held in memory.

        Raises:
            InvalidArgumentError: That is no id, or the range is not in the object.
            NotFoundError: No such object is stored.
            DataCorruptError: No living node has a good copy of some chunk.
        """
        manifest = await self._manifests.get(wanted)
        parts = slices(manifest.chunks, offset, length)
        return b"".join(
            [(await self._copies.find(part.chunk))[part.start : part.stop] for part in parts]
        )

    async def _announced(self, request: CommitObjectRequest) -> Object:
        """The manifest that a request asks for, with no places yet."""
        if not 0 <= request.replication <= MAX_REPLICATION:
            raise InvalidArgumentError(
                f"replication is {request.replication}",
                hint=f"1 to {MAX_REPLICATION}, or 0 for the cluster's default",
            )
        chunks = await _of_content(request.content) if request.content else request.chunks
        _check_chunks(chunks)
        manifest = Object(id=object_id(chunks), replication=request.replication)
        manifest.size_bytes = sum(chunk.size_bytes for chunk in chunks)
        if manifest.size_bytes > self._max_object_bytes:
            raise ResourceExhaustedError(
                "the object is too large", hint=f"at most {self._max_object_bytes} bytes"
            )
        if request.expected_id and check_object_id(request.expected_id) != manifest.id:
            raise InvalidArgumentError(
                f"the content is {manifest.id}, not {request.expected_id}",
                hint="it was changed or cut short on its way; nothing was stored",
            )
        manifest.chunks.extend(Chunk(hash=c.hash, size_bytes=c.size_bytes) for c in chunks)
        return manifest

    async def _missing(self, manifest: Object, count: int) -> list[MissingChunk]:
        """Fill in where chunks are; those that are nowhere, with where they should go."""
        have = await self._copies.holders([chunk.hash for chunk in manifest.chunks])
        missing: dict[bytes, MissingChunk] = {}
        for chunk in manifest.chunks:
            nodes = have[chunk.hash]
            if not nodes:
                addresses = [node.data_address for node in self._copies.order(chunk.hash)]
                missing[chunk.hash] = MissingChunk(hash=chunk.hash, addresses=addresses)
            elif len(nodes) < count:
                nodes = await self._copies.complete(chunk, manifest.tenant, nodes, count)
                have[chunk.hash] = nodes
            chunk.nodes[:] = nodes
        return list(missing.values())


async def _digest(data: bytes) -> bytes:
    """Its hash; beside the event loop where that takes longer than to get there."""
    return digest(data) if len(data) <= _SMALL_BYTES else await asyncio.to_thread(digest, data)


async def _of_content(content: bytes) -> list[Chunk]:
    if len(content) > CHUNK_BYTES:
        raise InvalidArgumentError(
            f"content of {len(content)} bytes is more than one chunk",
            hint=f"send it as chunks of {CHUNK_BYTES} bytes",
        )
    return [Chunk(hash=await _digest(content), size_bytes=len(content))]


def _check_chunks(chunks: Sequence[Chunk]) -> None:
    """Equal content is cut in one way only."""
    for number, chunk in enumerate(chunks, 1):
        least = CHUNK_BYTES if number < len(chunks) else 1
        if len(chunk.hash) != HASH_BYTES or not least <= chunk.size_bytes <= CHUNK_BYTES:
            raise InvalidArgumentError(
                f"chunk {number} of {len(chunks)} has {chunk.size_bytes} bytes "
                f"and a hash of {len(chunk.hash)}",
                hint=f"all but the last have {CHUNK_BYTES}, and a hash has {HASH_BYTES}",
            )
