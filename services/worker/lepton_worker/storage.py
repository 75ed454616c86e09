"""What a worker reads from and writes to the cluster's storage, with a cache on disk."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import grpc

from lepton_ai.chunking import object_id as object_id_of
from lepton_ai.data_plane import DataPlane
from lepton_ai.errors import InvalidArgumentError, NotFoundError, UnavailableError
from lepton_ai.objects import ObjectClient
from lepton_ai.proto.v1 import node_pb2, storage_pb2, task_pb2
from lepton_ai.proto.v1.storage_pb2_grpc import StorageServiceStub
from lepton_ai.rpc import open_channel, translated_errors
from lepton_runtime import keys
from lepton_runtime.clock import Clock
from lepton_runtime.state import State
from lepton_worker.cache import ObjectCache
from lepton_worker.settings import WorkerSettings

__all__ = ["WorkerStorage", "writer"]

_CALL_S = 30.0
_TRIES = 3


class WorkerStorage:
    """Objects, datasets and models, through whichever storage node answers."""

    def __init__(self, state: State, settings: WorkerSettings, clock: Clock) -> None:
        self._state = state
        self._settings = settings
        self._tls = settings.tls.client_context() if settings.tls else None
        self._cache = ObjectCache(settings.data_dir / "objects", settings.cache_bytes, clock)

    async def fetch(self, object_id: str) -> Path:
        """The local file of an object, fetched when it is not here yet."""
        return await self._cache.get(object_id, partial(self._download, object_id))

    async def size_bytes(self, object_id: str) -> int:
        """Of an object. Raises NotFoundError where there is none."""
        return (await self._manifest(object_id)).size_bytes

    async def fetch_chunk(self, object_id: str, number: int) -> Path:
        """The local file of an object's chunk, fetched when it is not here yet.

        Raises:
            NotFoundError: There is no such object, or it has no such chunk.
        """
        manifest = await self._manifest(object_id)
        if not 0 <= number < len(manifest.chunks):
            raise NotFoundError(f"object {object_id!r} has no chunk {number}")
        chunk = manifest.chunks[number]
        offset = sum(earlier.size_bytes for earlier in manifest.chunks[:number])

        async def download(path: Path) -> None:
            async with self._objects() as objects:
                content = await objects.get_range(object_id, offset, chunk.size_bytes)
            await asyncio.to_thread(path.write_bytes, content)

        # A chunk on its own is an object of that name: so the cache can check it.
        return await self._cache.get(object_id_of([chunk]), download)

    async def _manifest(self, object_id: str) -> storage_pb2.Object:
        record = await self._state.get(keys.object_(object_id))
        if record is None:
            raise NotFoundError(f"object {object_id!r} does not exist", object=object_id)
        return storage_pb2.Object.FromString(record.value)

    async def _download(self, object_id: str, path: Path) -> None:
        for left in reversed(range(_TRIES)):
            try:
                async with self._objects() as objects:
                    await objects.get_to_file(object_id, path)
                return
            except UnavailableError:
                if not left:
                    raise

    async def store(self, path: Path) -> str:
        """Store a file; returns its object's id."""
        async with self._objects() as objects:
            return (await objects.put_file(path)).id

    async def delete(self, object_id: str) -> None:
        """Forget an object that nothing refers to; one that is gone already is no error."""
        request = storage_pb2.DeleteObjectRequest(id=object_id)
        async with self._channel() as channel, translated_errors():
            await StorageServiceStub(channel).DeleteObject(request, timeout=_CALL_S)

    async def publish(self, model: storage_pb2.Model, task: task_pb2.Task) -> int:
        """Name a stored model; returns its version, the same for the same job.

        Raises:
            ConflictError: The task was replaced meanwhile.
        """
        async with self._channel() as channel, translated_errors():
            request = storage_pb2.PublishModelRequest(model=model, writer=writer(task))
            answer = await StorageServiceStub(channel).PublishModel(request, timeout=_CALL_S)
            return answer.model.version

    async def add_dataset(self, request: storage_pb2.CreateDatasetRequest) -> storage_pb2.Dataset:
        """Name stored splits as a dataset's next version, the same for the same job.

        Raises:
            ConflictError: The writer was replaced meanwhile.
        """
        async with self._channel() as channel, translated_errors():
            answer = await StorageServiceStub(channel).CreateDataset(request, timeout=_CALL_S)
            return answer.dataset

    async def model(self, name: str, version: int) -> storage_pb2.Model:
        """A published version.

        Raises:
            NotFoundError: It is not there any more.
        """
        record = await self._state.get(keys.model(name, version))
        model = storage_pb2.Model.FromString(record.value) if record else storage_pb2.Model()
        if not model.version or model.HasField("deleted_at"):
            raise NotFoundError(f"model '{name}:{version}' does not exist")
        return model

    async def split(self, dataset: str, split: str) -> storage_pb2.Split:
        """A split of a dataset, given as ``name`` or ``name:version``.

        Raises:
            NotFoundError: There is no such dataset.
            InvalidArgumentError: It has no such split.
        """
        name, _, version = dataset.partition(":")
        prefix = keys.dataset(name, int(version)) if version else f"{keys.DATASETS}{name}/"
        records = (await self._state.list(prefix)).records
        if not records:
            raise NotFoundError(f"dataset {dataset!r} does not exist")
        versions = [storage_pb2.Dataset.FromString(record.value) for record in records]
        left = [version for version in versions if not version.HasField("deleted_at")]
        if not left:
            raise NotFoundError(f"dataset {dataset!r} was deleted")
        found = left[-1]
        for candidate in found.splits:
            if candidate.name == split:
                return candidate
        known = ", ".join(candidate.name for candidate in found.splits)
        raise InvalidArgumentError(f"dataset {dataset!r} has no split {split!r}", hint=known)

    @contextlib.asynccontextmanager
    async def _objects(self) -> AsyncGenerator[ObjectClient]:
        doors = [node.data_address for node in await self._nodes()]
        token = self._settings.service_token
        data = DataPlane(doors, token, self._tls, direct=True)
        try:
            yield ObjectClient(data)
        finally:
            data.close()

    async def _nodes(self) -> list[node_pb2.Node]:
        """Storage nodes that live, in an order of chance: load spreads."""
        records = (await self._state.list(keys.NODES)).records
        nodes = [node_pb2.Node.FromString(record.value) for record in records]
        storing = [node for node in nodes if node.role == node_pb2.NODE_ROLE_STORAGE]
        if not storing:
            raise UnavailableError("no storage node is up")
        random.shuffle(storing)
        return storing

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncGenerator[grpc.aio.Channel]:
        address = (await self._nodes())[0].address
        settings = self._settings
        channel = open_channel(address, settings.service_token, settings.channel_credentials)
        try:
            yield channel
        finally:
            await channel.close()


def writer(task: task_pb2.Task) -> task_pb2.Task:
    """What tells an attempt from every other, for who checks whether it is still placed."""
    return task_pb2.Task(
        id=task.id,
        node_id=task.node_id,
        attempt=task.attempt,
        placed_revision=task.placed_revision,
    )
