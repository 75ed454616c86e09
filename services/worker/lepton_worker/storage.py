"""What a worker reads from and writes to the cluster's storage, with a cache on disk."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc

from lepton_ai.errors import InvalidArgumentError, NotFoundError, UnavailableError
from lepton_ai.objects import ObjectClient
from lepton_ai.proto.v1 import node_pb2, storage_pb2
from lepton_ai.proto.v1.storage_pb2_grpc import StorageServiceStub
from lepton_ai.rpc import open_channel, translated_errors
from lepton_runtime import keys
from lepton_runtime.settings import RuntimeSettings
from lepton_runtime.state import State

__all__ = ["WorkerStorage"]

_CALL_S = 30.0
_TRIES = 3


class WorkerStorage:
    """Objects, datasets and models, through whichever storage node answers."""

    def __init__(self, state: State, settings: RuntimeSettings) -> None:
        self._state = state
        self._settings = settings
        self._cache = settings.data_dir / "objects"
        self._cache.mkdir(parents=True, exist_ok=True)

    async def fetch(self, object_id: str) -> Path:
        """The local file of an object, fetched when it is not here yet."""
        path = self._cache / object_id
        for left in reversed(range(_TRIES)):
            if path.exists():
                break
            try:
                async with self._channel() as channel:
                    await ObjectClient(channel).get_to_file(object_id, path)
            except UnavailableError:
                if not left:
                    raise
        return path

    async def store(self, path: Path) -> str:
        """Store a file; returns its object's id."""
        async with self._channel() as channel:
            return (await ObjectClient(channel).put_file(path)).id

    async def delete(self, object_id: str) -> None:
        """Forget an object that nothing refers to; one that is gone already is no error."""
        request = storage_pb2.DeleteObjectRequest(id=object_id)
        async with self._channel() as channel, translated_errors():
            await StorageServiceStub(channel).DeleteObject(request, timeout=_CALL_S)

    async def publish(self, model: storage_pb2.Model) -> int:
        """Name a stored model; returns its version, the same for the same job."""
        async with self._channel() as channel, translated_errors():
            request = storage_pb2.PublishModelRequest(model=model)
            answer = await StorageServiceStub(channel).PublishModel(request, timeout=_CALL_S)
            return answer.model.version

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
        found = storage_pb2.Dataset.FromString(records[-1].value)
        for candidate in found.splits:
            if candidate.name == split:
                return candidate
        known = ", ".join(candidate.name for candidate in found.splits)
        raise InvalidArgumentError(f"dataset {dataset!r} has no split {split!r}", hint=known)

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncGenerator[grpc.aio.Channel]:
        records = (await self._state.list(keys.NODES)).records
        nodes = [node_pb2.Node.FromString(record.value) for record in records]
        storing = [node.address for node in nodes if node.role == node_pb2.NODE_ROLE_STORAGE]
        if not storing:
            raise UnavailableError("no storage node is up")
        address = random.choice(storing)  # noqa: S311 - spreads load, no secret
        settings = self._settings
        channel = open_channel(address, settings.service_token, settings.channel_credentials)
        try:
            yield channel
        finally:
            await channel.close()
