"""Chunks carried to and from other storage nodes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol

import grpc

from lepton_ai.chunking import digest
from lepton_ai.errors import DataCorruptError
from lepton_ai.http import HttpClient
from lepton_ai.proto.v1 import storage_pb2
from lepton_ai.proto.v1.storage_pb2_grpc import StorageServiceStub
from lepton_ai.rpc import translated_errors
from lepton_storage.batches import Batches
from lepton_storage.chunks import SMALL_BYTES
from lepton_storage.placement import StorageNode

__all__ = ["Channels", "Peers"]

_TRANSFER_S = 20.0
# All of a disk is read for it.
_LISTING_S = 12 * 3600.0
_CONNECTIONS = 16
# Small chunks that go to a node in one request, and such requests under way.
_MAX_TOGETHER = 64
_BATCHES = 2
_HERE = {"lepton-here": "1"}


class Peers(Protocol):
    """Carries chunks between nodes."""

    async def put(
        self, node: StorageNode, chunk: storage_pb2.Chunk, data: bytes | memoryview, tenant: str
    ) -> None:
        """Have `node` keep a chunk of a tenant; durable there once this returns."""
        ...

    async def get(self, node: StorageNode, chunk: storage_pb2.Chunk) -> memoryview:
        """The chunk as `node` has it, checked against its hash."""
        ...

    async def has(self, node: StorageNode, chunk_hashes: Sequence[bytes]) -> set[bytes]:
        """Those of which `node` has a good copy."""
        ...

    def listed(self, node: StorageNode) -> AsyncIterator[storage_pb2.ListChunksResponse]:
        """All that `node` has, read and checked, a batch at a time."""
        ...


class Channels:
    """`Peers` over the data plane, and gRPC for questions.

    Args:
        open_channel: Opens a channel to ``host:port`` with this node's own key.
        token: This node's own key.
        tls: What to show and trust; None for plain text.
    """

    def __init__(
        self,
        open_channel: Callable[[str], grpc.aio.Channel],
        token: str,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._open_channel = open_channel
        self._token = token
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._clients: dict[str, HttpClient] = {}
        self._batches: dict[str, Batches[storage_pb2.KeptChunk, None]] = {}

    async def put(
        self, node: StorageNode, chunk: storage_pb2.Chunk, data: bytes | memoryview, tenant: str
    ) -> None:
        """Have `node` keep a chunk of a tenant; durable there once this returns."""
        if len(data) < SMALL_BYTES:
            kept = storage_pb2.KeptChunk(hash=chunk.hash, data=bytes(data), tenant=tenant)
            await self._together(node).do(kept, len(data))
        else:
            await self._put_alone(node, chunk, data, tenant)

    async def _put_alone(
        self, node: StorageNode, chunk: storage_pb2.Chunk, data: bytes | memoryview, tenant: str
    ) -> None:
        headers = {**_HERE, "lepton-tenant": tenant}
        path = f"/data/chunks/{chunk.hash.hex()}"
        client = self._client(node)
        await client.request("PUT", path, data, headers=headers, timeout_s=_TRANSFER_S)

    async def get(self, node: StorageNode, chunk: storage_pb2.Chunk) -> memoryview:
        """The chunk as `node` has it, checked against its hash."""
        path = f"/data/chunks/{chunk.hash.hex()}"
        client = self._client(node)
        data = (await client.request("GET", path, headers=_HERE, timeout_s=_TRANSFER_S)).body
        if await asyncio.to_thread(digest, data) != chunk.hash:
            raise DataCorruptError("a node sent bytes that do not match their hash", node=node.id)
        return memoryview(data)

    async def has(self, node: StorageNode, chunk_hashes: Sequence[bytes]) -> set[bytes]:
        """Those of which `node` has a good copy."""
        request = storage_pb2.HasChunksRequest(hashes=chunk_hashes)
        async with translated_errors():
            answer = await self._stub(node).HasChunks(request, timeout=_TRANSFER_S)
            return set(answer.hashes)

    async def listed(self, node: StorageNode) -> AsyncIterator[storage_pb2.ListChunksResponse]:
        """All that `node` has, read and checked, a batch at a time."""
        request = storage_pb2.ListChunksRequest()
        async with translated_errors():
            async for batch in self._stub(node).ListChunks(request, timeout=_LISTING_S):
                yield batch

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            client.close()
        for channel in self._channels.values():
            await channel.close()

    def _together(self, node: StorageNode) -> Batches[storage_pb2.KeptChunk, None]:
        address = node.data_address
        if address not in self._batches:
            self._batches[address] = Batches(
                partial(self._put_together, self._client(node)),
                at_once=_BATCHES,
                max_items=_MAX_TOGETHER,
                max_size=SMALL_BYTES,
            )
        return self._batches[address]

    async def _put_together(
        self, client: HttpClient, chunks: Sequence[storage_pb2.KeptChunk]
    ) -> list[None]:
        body = storage_pb2.KeepChunksRequest(chunks=chunks).SerializeToString()
        await client.request("PUT", "/data/chunks", body, timeout_s=_TRANSFER_S)
        return [None] * len(chunks)

    def _stub(self, node: StorageNode) -> StorageServiceStub:
        if node.address not in self._channels:
            self._channels[node.address] = self._open_channel(node.address)
        return StorageServiceStub(self._channels[node.address])

    def _client(self, node: StorageNode) -> HttpClient:
        address = node.data_address
        if address not in self._clients:
            self._clients[address] = HttpClient(address, self._token, self._tls, _CONNECTIONS)
        return self._clients[address]
