"""Looking after storage nodes: what an administrator does."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lepton_ai.proto.v1 import storage_pb2, storage_pb2_grpc
from lepton_ai.rpc import translated_errors

__all__ = ["AsyncStorage"]

_CALL_S = 30.0


class AsyncStorage:
    """The storage nodes of a cluster. Made by `AsyncCluster.storage`."""

    def __init__(self, stub: storage_pb2_grpc.StorageServiceStub) -> None:
        self._stub = stub

    async def drain(self, node_id: str) -> None:
        """Have a storage node give its chunks to the others; its record tells how many are left.

        Raises:
            NotFoundError: No such storage node is alive.
            ConflictError: No other could take them.
        """
        request = storage_pb2.DrainNodeRequest(node_id=node_id)
        async with translated_errors():
            await self._stub.DrainNode(request, timeout=_CALL_S)

    async def undrain(self, node_id: str) -> None:
        """Let a storage node take chunks again."""
        request = storage_pb2.UndrainNodeRequest(node_id=node_id)
        async with translated_errors():
            await self._stub.UndrainNode(request, timeout=_CALL_S)

    async def check(self) -> AsyncIterator[storage_pb2.CheckStorageResponse]:
        """Read all that every node has, and check it: progress, findings, then the summary.

        At most 1,000 findings are told; the summary counts all.

        Raises:
            UnavailableError: A storage node that lives did not answer.
        """
        async with translated_errors():
            async for answer in self._stub.CheckStorage(storage_pb2.CheckStorageRequest()):
                yield answer

    async def usage(self) -> list[storage_pb2.TenantUsage]:
        """What tenants store and may store, as of a few seconds ago."""
        async with translated_errors():
            request = storage_pb2.ListUsageRequest()
            return list((await self._stub.ListUsage(request, timeout=_CALL_S)).tenants)

    async def set_quota(self, tenant: str, size_bytes: int) -> None:
        """Limit what a tenant stores; 0 takes the limit away. What it has already stays.

        Raises:
            InvalidArgumentError: That is no tenant's name or no size.
        """
        request = storage_pb2.SetQuotaRequest(tenant=tenant, size_bytes=size_bytes)
        async with translated_errors():
            await self._stub.SetQuota(request, timeout=_CALL_S)

    async def rotate_master_key(self) -> int:
        """Wrap the keys that chunks are encrypted with by the newest master key.

        Returns:
            How many tenants' keys.

        Raises:
            ConflictError: Chunks are not encrypted, or the older master key is not there.
        """
        request = storage_pb2.RotateMasterKeyRequest()
        async with translated_errors():
            return (await self._stub.RotateMasterKey(request, timeout=_CALL_S)).tenants
