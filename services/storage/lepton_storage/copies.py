"""Copies of a chunk: enough of them made, one good one found."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence

import structlog

from lepton_ai.errors import (
    DataCorruptError,
    LeptonError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from lepton_ai.proto.v1.storage_pb2 import Chunk
from lepton_storage.chunks import Chunks
from lepton_storage.members import Members
from lepton_storage.peers import Peers
from lepton_storage.placement import StorageNode, default_replication, ranked, taking, targets

__all__ = ["Copies"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.copies")


class Copies:
    """Chunks of this node and of its peers.

    Args:
        node_id: This node.
        chunks: Its own.
        members: The nodes that live.
        peers: Carries chunks to and from them.
    """

    def __init__(self, node_id: str, chunks: Chunks, members: Members, peers: Peers) -> None:
        self._node_id = node_id
        self._chunks = chunks
        self._members = members
        self._peers = peers

    async def count(self, asked: int) -> int:
        """How many copies an acknowledgement takes: a default yields to a small cluster.

        Args:
            asked: Copies wanted; 0 for the default.

        Raises:
            UnavailableError: More are asked for than nodes take chunks.
        """
        if self._taking() < (asked or default_replication(2)):
            await self._members.refresh()
        nodes = self._taking()
        if asked > nodes:
            raise UnavailableError(
                f"{asked} copies are wanted and {nodes} storage nodes could take one",
                hint="ask for fewer copies or add storage nodes",
            )
        return asked or max(min(default_replication(nodes), nodes), 1)

    def _taking(self) -> int:
        return taking(self._members.nodes.values())

    async def make(
        self, chunk: Chunk, data: bytes | memoryview, tenant: str, count: int
    ) -> list[str]:
        """Put a chunk on the `count` nodes that should have it; one that fails is passed over.

        Args:
            chunk: Its hash and size.
            data: Its bytes.
            tenant: Whose key encrypts it.
            count: Copies wanted.

        Returns:
            The nodes that have it durably.

        Raises:
            ResourceExhaustedError: Too few nodes have space.
            UnavailableError: Too few nodes could keep it.
        """
        return await self.spread(chunk, data, tenant, self.order(chunk.hash), count)

    def order(self, chunk_hash: bytes) -> list[StorageNode]:
        """The living nodes, in the order in which they should keep a chunk."""
        return targets(chunk_hash, self._members.nodes.values(), held=())

    async def holders(self, chunk_hashes: Sequence[bytes]) -> dict[bytes, list[str]]:
        """Which living nodes have a good copy. A node that does not answer counts for none."""
        have: dict[bytes, list[str]] = {chunk_hash: [] for chunk_hash in chunk_hashes}

        async def ask(node: StorageNode) -> None:
            for chunk_hash in await self._had_by(node, list(have)):
                have[chunk_hash].append(node.id)

        async with asyncio.TaskGroup() as tasks:
            for node in self._members.nodes.values():
                tasks.create_task(ask(node))
        return have

    async def complete(
        self, chunk: Chunk, tenant: str, nodes: Sequence[str], count: int
    ) -> list[str]:
        """Make up for copies that a chunk lacks. Raises as `make` and `find`."""
        living = self._members.nodes
        held = [living[name] for name in nodes if name in living]
        order = targets(chunk.hash, living.values(), held)
        data = await self.find(Chunk(hash=chunk.hash, nodes=nodes))
        made = await self.spread(chunk, data, tenant, order, count - len(nodes))
        return [*nodes, *made]

    async def spread(
        self,
        chunk: Chunk,
        data: bytes | memoryview,
        tenant: str,
        order: Sequence[StorageNode],
        count: int,
    ) -> list[str]:
        """Put a chunk on the first `count` nodes of `order` that take it. Raises as `make`."""
        waiting = deque(order)
        made: list[str] = []
        failures: list[LeptonError] = []

        async def make_one() -> None:
            while waiting:
                node = waiting.popleft()
                try:
                    await self._write(node, chunk, data, tenant)
                except LeptonError as error:
                    _log.warning("copy_failed", node=node.id, error=str(error))
                    failures.append(error)
                else:
                    made.append(node.id)
                    return

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(make_one())
        if len(made) < count:
            raise _too_few(len(made), count, failures)
        return made

    async def find(self, chunk: Chunk) -> memoryview:
        """A chunk's bytes from wherever there is a good copy. One that is bad here is out of the
        way then, and healing fetches another.

        Raises:
            DataCorruptError: No node that lives has a good copy.
        """
        try:
            return await self._chunks.read(chunk.hash)
        except (NotFoundError, DataCorruptError):
            return await self.fetch(chunk)

    async def fetch(self, chunk: Chunk) -> memoryview:
        """A chunk's bytes from another node. Raises as `find`."""
        others = [node for node in self._members.nodes.values() if node.id != self._node_id]
        order = ranked(chunk.hash, others)
        # Nodes that are not said to have it may still do, from before they were lost.
        for node in sorted(order, key=lambda node: node.id not in chunk.nodes):
            try:
                return await self._peers.get(node, chunk)
            except LeptonError as error:
                _log.warning("fetch_failed", node=node.id, error=str(error))
        raise DataCorruptError(
            "no living storage node has a good copy of a part of the object",
            hint="bring back the storage nodes that are down",
            chunk=chunk.hash.hex(),
        )

    async def _had_by(self, node: StorageNode, chunk_hashes: Sequence[bytes]) -> Collection[bytes]:
        if node.id == self._node_id:
            return await self._chunks.good(chunk_hashes)
        try:
            return await self._peers.has(node, chunk_hashes)
        except LeptonError as error:
            _log.warning("holder_not_asked", node=node.id, error=str(error))
            return ()

    async def _write(
        self, node: StorageNode, chunk: Chunk, data: bytes | memoryview, tenant: str
    ) -> None:
        if node.id != self._node_id:
            await self._peers.put(node, chunk, data, tenant)
            return
        try:
            await self._chunks.write(chunk.hash, data, tenant)
        except OSError as error:
            raise UnavailableError(f"the disk of {node.id} failed: {error.strerror}") from None


def _too_few(made: int, count: int, failures: Sequence[LeptonError]) -> LeptonError:
    message = f"only {made} of {count} copies could be made"
    if failures and all(isinstance(error, ResourceExhaustedError) for error in failures):
        return ResourceExhaustedError(message, hint="the storage nodes are full")
    return UnavailableError(message, hint="try again, or ask for fewer copies")
