"""Copies where an object store keeps them: each chunk is there once for all nodes."""

from __future__ import annotations

from collections.abc import Sequence

from lepton_ai.errors import DataCorruptError, NotFoundError
from lepton_ai.proto.v1.storage_pb2 import Chunk
from lepton_storage.chunks import Chunks
from lepton_storage.members import Members
from lepton_storage.placement import StorageNode, ranked

__all__ = ["HOLDER", "SharedCopies"]

HOLDER = "object-store"
"""What manifests name in place of the nodes that have a chunk."""


class SharedCopies:
    """`Copies` of chunks that every node reads and writes in the same place.

    Args:
        chunks: The place.
        members: Nodes that live.
    """

    def __init__(self, chunks: Chunks, members: Members) -> None:
        self._chunks = chunks
        self._members = members

    async def count(self, asked: int) -> int:
        """How many copies an acknowledgement takes: the store makes more by itself."""
        del asked
        return 1

    async def make(
        self, chunk: Chunk, data: bytes | memoryview, tenant: str, count: int
    ) -> list[str]:
        """Put a chunk into the store. Raises as the engine does."""
        del count
        await self._chunks.write(chunk.hash, data, tenant)
        return [HOLDER]

    def order(self, chunk_hash: bytes) -> list[StorageNode]:
        """The nodes in the order in which they should be asked: work spreads."""
        return ranked(chunk_hash, self._members.nodes.values())

    async def holders(self, chunk_hashes: Sequence[bytes]) -> dict[bytes, list[str]]:
        """Which chunks are in the store."""
        good = await self._chunks.good(chunk_hashes)
        return {each: [HOLDER] if each in good else [] for each in chunk_hashes}

    async def complete(
        self, chunk: Chunk, tenant: str, nodes: Sequence[str], count: int
    ) -> list[str]:
        """What is in the store lacks no copy."""
        del chunk, tenant, count
        return list(nodes)

    async def find(self, chunk: Chunk) -> memoryview:
        """A chunk's bytes.

        Raises:
            DataCorruptError: The store has no good copy.
        """
        try:
            return await self._chunks.read(chunk.hash)
        except (NotFoundError, DataCorruptError):
            raise DataCorruptError(
                "the object store has no good copy of a part of the object",
                hint="bring it back from the store's own backup",
                chunk=chunk.hash.hex(),
            ) from None
