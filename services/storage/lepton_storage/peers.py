"""The storage nodes that live now, and chunks carried to and from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

import grpc

from lepton_ai.errors import DataCorruptError
from lepton_ai.proto.v1 import storage_pb2
from lepton_ai.proto.v1.node_pb2 import NODE_ROLE_STORAGE, Node
from lepton_ai.proto.v1.storage_pb2_grpc import StorageServiceStub
from lepton_ai.rpc import translated_errors
from lepton_runtime import keys
from lepton_runtime.state import Delete, Put, Record, Snapshot, State
from lepton_storage.chunking import digest
from lepton_storage.placement import StorageNode, storage_node

__all__ = ["PART_BYTES", "Channels", "Members", "Peers"]

PART_BYTES = 1024 * 1024
_TRANSFER_S = 20.0


class Peers(Protocol):
    """Carries chunks between nodes."""

    async def put(self, node: StorageNode, chunk: storage_pb2.Chunk, data: bytes) -> None:
        """Have `node` keep a chunk; durable there once this returns."""
        ...

    async def get(self, node: StorageNode, chunk: storage_pb2.Chunk) -> bytes:
        """The chunk as `node` has it, checked against its hash."""
        ...


class Members:
    """Living storage nodes, followed in the cluster's state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._nodes: dict[str, StorageNode] = {}
        self._read = asyncio.Event()

    @property
    def nodes(self) -> dict[str, StorageNode]:
        """Living nodes by id."""
        return dict(self._nodes)

    async def known(self) -> None:
        """Wait until they have been read once."""
        await self._read.wait()

    async def refresh(self) -> None:
        """Read them now: what is followed may be a moment behind."""
        self._replace((await self._state.list(keys.NODES)).records)

    async def follow(self) -> None:
        """Keep up until cancelled."""
        async for change in self._state.watch(keys.NODES):
            match change:
                case Snapshot(records=records):
                    self._replace(records)
                    self._read.set()
                case Put(record=record):
                    self._add(record)
                case Delete(key=key):
                    self._nodes.pop(key.removeprefix(keys.NODES), None)

    def _replace(self, records: Iterable[Record]) -> None:
        self._nodes.clear()
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        node = Node.FromString(record.value)
        if node.role == NODE_ROLE_STORAGE:
            self._nodes[node.id] = storage_node(node)


class Channels:
    """`Peers` over gRPC, with one channel to each address.

    Args:
        open_channel: Opens a channel to ``host:port`` with this node's own key.
    """

    def __init__(self, open_channel: Callable[[str], grpc.aio.Channel]) -> None:
        self._open_channel = open_channel
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def put(self, node: StorageNode, chunk: storage_pb2.Chunk, data: bytes) -> None:
        """Have `node` keep a chunk; durable there once this returns."""
        async with translated_errors():
            await self._stub(node).PutChunk(_parts(chunk, data), timeout=_TRANSFER_S)

    async def get(self, node: StorageNode, chunk: storage_pb2.Chunk) -> bytes:
        """The chunk as `node` has it, checked against its hash."""
        data = bytearray()
        request = storage_pb2.GetChunkRequest(hash=chunk.hash)
        async with translated_errors():
            async for answer in self._stub(node).GetChunk(request, timeout=_TRANSFER_S):
                data += answer.data
                if len(data) > chunk.size_bytes:
                    break
        whole = bytes(data)
        if await asyncio.to_thread(digest, whole) != chunk.hash:
            raise DataCorruptError("a node sent bytes that do not match their hash", node=node.id)
        return whole

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()

    def _stub(self, node: StorageNode) -> StorageServiceStub:
        if node.address not in self._channels:
            self._channels[node.address] = self._open_channel(node.address)
        return StorageServiceStub(self._channels[node.address])


async def _parts(
    chunk: storage_pb2.Chunk, data: bytes
) -> AsyncIterator[storage_pb2.PutChunkRequest]:
    yield storage_pb2.PutChunkRequest(chunk=chunk)
    for start in range(0, len(data), PART_BYTES):
        yield storage_pb2.PutChunkRequest(data=data[start : start + PART_BYTES])
