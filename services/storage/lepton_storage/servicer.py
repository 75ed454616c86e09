"""The calls of `StorageService`: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from lepton_ai.chunking import HASH_BYTES
from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1 import storage_pb2, storage_pb2_grpc
from lepton_runtime.server import principal
from lepton_storage.aliases import Aliases
from lepton_storage.checking import Checker, listed
from lepton_storage.chunks import Chunks
from lepton_storage.datasets import Datasets
from lepton_storage.draining import Draining
from lepton_storage.models import Models
from lepton_storage.quotas import Quotas
from lepton_storage.registry import Registry
from lepton_storage.retention import Retention
from lepton_storage.sealing import Sealer
from lepton_storage.store import ObjectStore

__all__ = ["StorageServicer"]

_Context = grpc.aio.ServicerContext[Any, Any]


class StorageServicer(storage_pb2_grpc.StorageServiceServicer):
    """Answers `StorageService`.

    Args:
        store: Objects of the cluster.
        chunks: Chunks of this node.
        sealer: Has the keys that chunks are encrypted with.
        quotas: How much tenants store and may store.
        checker: Checks everything.
        datasets: Creates datasets.
        models: Publishes models.
        known_datasets: Finds datasets.
        known_models: Finds models.
        retention: How many versions of models are kept.
        aliases: Names that move between a model's versions.
        draining: Nodes that are to be emptied.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        chunks: Chunks,
        sealer: Sealer,
        quotas: Quotas,
        checker: Checker,
        datasets: Datasets,
        models: Models,
        known_datasets: Registry[storage_pb2.Dataset],
        known_models: Registry[storage_pb2.Model],
        aliases: Aliases,
        retention: Retention,
        draining: Draining,
    ) -> None:
        self._store = store
        self._chunks = chunks
        self._sealer = sealer
        self._quotas = quotas
        self._checker = checker
        self._datasets = datasets
        self._models = models
        self._known_datasets = known_datasets
        self._known_models = known_models
        self._aliases = aliases
        self._retention = retention
        self._draining = draining

    async def StatObject(
        self, request: storage_pb2.StatObjectRequest, context: _Context
    ) -> storage_pb2.StatObjectResponse:
        """Tell what is known of an object."""
        return storage_pb2.StatObjectResponse(object=await self._store.stat(request.id))

    async def DeleteObject(
        self, request: storage_pb2.DeleteObjectRequest, context: _Context
    ) -> storage_pb2.DeleteObjectResponse:
        """Forget an object."""
        await self._store.delete(request.id)
        return storage_pb2.DeleteObjectResponse()

    async def DrainNode(
        self, request: storage_pb2.DrainNodeRequest, context: _Context
    ) -> storage_pb2.DrainNodeResponse:
        """Empty a node."""
        await self._draining.start(request.node_id)
        return storage_pb2.DrainNodeResponse()

    async def UndrainNode(
        self, request: storage_pb2.UndrainNodeRequest, context: _Context
    ) -> storage_pb2.UndrainNodeResponse:
        """Let a node take chunks again."""
        await self._draining.stop(request.node_id)
        return storage_pb2.UndrainNodeResponse()

    async def ListUsage(
        self, request: storage_pb2.ListUsageRequest, context: _Context
    ) -> storage_pb2.ListUsageResponse:
        """Tell what tenants store."""
        return storage_pb2.ListUsageResponse(tenants=self._quotas.table())

    async def SetQuota(
        self, request: storage_pb2.SetQuotaRequest, context: _Context
    ) -> storage_pb2.SetQuotaResponse:
        """Limit what a tenant stores."""
        await self._quotas.set(request.tenant, request.size_bytes)
        return storage_pb2.SetQuotaResponse()

    async def CheckStorage(
        self, request: storage_pb2.CheckStorageRequest, context: _Context
    ) -> AsyncIterator[storage_pb2.CheckStorageResponse]:
        """Check everything."""
        async for answer in self._checker.check():
            yield answer

    async def ListChunks(
        self, request: storage_pb2.ListChunksRequest, context: _Context
    ) -> AsyncIterator[storage_pb2.ListChunksResponse]:
        """Read all chunks of this node."""
        async for batch in listed(self._chunks):
            yield batch

    async def RotateMasterKey(
        self, request: storage_pb2.RotateMasterKeyRequest, context: _Context
    ) -> storage_pb2.RotateMasterKeyResponse:
        """Wrap the tenants' keys anew."""
        return storage_pb2.RotateMasterKeyResponse(tenants=await self._sealer.rewrap())

    async def HasChunks(
        self, request: storage_pb2.HasChunksRequest, context: _Context
    ) -> storage_pb2.HasChunksResponse:
        """Tell which chunks are on this node."""
        if any(len(chunk_hash) != HASH_BYTES for chunk_hash in request.hashes):
            raise InvalidArgumentError(f"a chunk's hash has {HASH_BYTES} bytes")
        return storage_pb2.HasChunksResponse(hashes=await self._chunks.good(request.hashes))

    async def CreateDataset(
        self, request: storage_pb2.CreateDatasetRequest, context: _Context
    ) -> storage_pb2.CreateDatasetResponse:
        """Name splits as a dataset."""
        dataset = await self._datasets.create(request, principal().tenant)
        return storage_pb2.CreateDatasetResponse(dataset=dataset)

    async def GetDataset(
        self, request: storage_pb2.GetDatasetRequest, context: _Context
    ) -> storage_pb2.GetDatasetResponse:
        """Find a dataset."""
        dataset = await self._known_datasets.get(request.name, request.version)
        return storage_pb2.GetDatasetResponse(dataset=dataset)

    async def DeleteDataset(
        self, request: storage_pb2.DeleteDatasetRequest, context: _Context
    ) -> storage_pb2.DeleteDatasetResponse:
        """Forget a version."""
        _check_version(request.version)
        await self._datasets.delete(request.name, request.version)
        return storage_pb2.DeleteDatasetResponse()

    async def ListDatasets(
        self, request: storage_pb2.ListDatasetsRequest, context: _Context
    ) -> storage_pb2.ListDatasetsResponse:
        """List all datasets."""
        datasets = await self._known_datasets.list_all()
        return storage_pb2.ListDatasetsResponse(datasets=datasets)

    async def PublishModel(
        self, request: storage_pb2.PublishModelRequest, context: _Context
    ) -> storage_pb2.PublishModelResponse:
        """Name stored objects as a model."""
        model = await self._models.publish(request.model, principal().tenant, request.writer)
        await self._retention.apply(model.name)
        return storage_pb2.PublishModelResponse(model=model)

    async def SetRetention(
        self, request: storage_pb2.SetRetentionRequest, context: _Context
    ) -> storage_pb2.SetRetentionResponse:
        """Keep only the newest versions of a model."""
        removed = await self._retention.set(request.model, request.newest)
        return storage_pb2.SetRetentionResponse(removed=removed)

    async def GetModel(
        self, request: storage_pb2.GetModelRequest, context: _Context
    ) -> storage_pb2.GetModelResponse:
        """Find a model."""
        model = await self._known_models.get(request.name, request.version)
        return storage_pb2.GetModelResponse(model=model)

    async def DeleteModel(
        self, request: storage_pb2.DeleteModelRequest, context: _Context
    ) -> storage_pb2.DeleteModelResponse:
        """Forget a version."""
        _check_version(request.version)
        await self._aliases.remove_version(request.name, request.version)
        return storage_pb2.DeleteModelResponse()

    async def MoveAlias(
        self, request: storage_pb2.MoveAliasRequest, context: _Context
    ) -> storage_pb2.MoveAliasResponse:
        """Point an alias at a version."""
        expected = request.from_version if request.HasField("from_version") else None
        alias = await self._aliases.move(request.model, request.alias, request.version, expected)
        return storage_pb2.MoveAliasResponse(alias=alias)

    async def DeleteAlias(
        self, request: storage_pb2.DeleteAliasRequest, context: _Context
    ) -> storage_pb2.DeleteAliasResponse:
        """Forget an alias."""
        await self._aliases.delete(request.model, request.alias)
        return storage_pb2.DeleteAliasResponse()

    async def ListAliases(
        self, request: storage_pb2.ListAliasesRequest, context: _Context
    ) -> storage_pb2.ListAliasesResponse:
        """List aliases."""
        return storage_pb2.ListAliasesResponse(aliases=await self._aliases.list(request.model))

    async def ListModels(
        self, request: storage_pb2.ListModelsRequest, context: _Context
    ) -> storage_pb2.ListModelsResponse:
        """List models."""
        known = self._known_models
        models = await (known.list(request.name) if request.name else known.list_all())
        return storage_pb2.ListModelsResponse(models=models)


def _check_version(version: int) -> None:
    if version < 1:
        raise InvalidArgumentError(f"version is {version}", hint="1 or more")
