"""Datasets: splits that are checked against their objects, then named."""

from __future__ import annotations

from lepton_ai.errors import DataError, InvalidArgumentError
from lepton_ai.names import check_name
from lepton_ai.proto.v1.event_pb2 import DatasetCreated
from lepton_ai.proto.v1.storage_pb2 import CreateDatasetRequest, Dataset, Split
from lepton_ai.splits import (
    HEADER_LENGTH_BYTES,
    Place,
    check_split,
    header_length,
    parse_header,
)
from lepton_runtime.bus import Bus
from lepton_runtime.clock import Clock
from lepton_runtime.events import publish_event
from lepton_runtime.fencing import still_placed
from lepton_runtime.state import State
from lepton_storage.jobs import unfinished_jobs
from lepton_storage.registry import Registry
from lepton_storage.store import ObjectStore

__all__ = ["Datasets"]

_MAX_SPLITS = 100


class Datasets:
    """Creates datasets.

    Args:
        state: Has the jobs that need them.
        registry: Where they are kept.
        store: Where their objects are.
        bus: Told of new ones.
        clock: Tells when they were made.
        node_id: Who says so.
    """

    def __init__(
        self,
        *,
        state: State,
        registry: Registry[Dataset],
        store: ObjectStore,
        bus: Bus,
        clock: Clock,
        node_id: str,
    ) -> None:
        self._state = state
        self._registry = registry
        self._store = store
        self._bus = bus
        self._clock = clock
        self._node_id = node_id

    async def create(self, request: CreateDatasetRequest, tenant: str) -> Dataset:
        """Name splits as the next version of a dataset; a job gets the same version again.

        Raises:
            ConflictError: The attempt that makes it was replaced meanwhile.
            InvalidArgumentError: A name is wrong, or there are no splits or too many.
            NotFoundError: An object is not stored.
            DataError: A split is not what it says.
        """
        _check_names(request)
        for split in request.splits:
            check_split(split, await self._places(split))
        made_by, writer = request.origin.job_id, request.writer
        dataset = Dataset(name=request.name, splits=request.splits, tenant=tenant)
        if request.HasField("origin"):
            dataset.origin.CopyFrom(request.origin)
        dataset.created_at.FromNanoseconds(int(self._clock.now() * 1e9))
        dataset, is_new = await self._registry.add(
            dataset,
            same=lambda version: bool(made_by) and version.origin.job_id == made_by,
            pins=lambda: self._store.pins(split.object_id for split in request.splits),
            guards=[still_placed(writer)] if writer.id else [],
        )
        if is_new:
            event = DatasetCreated(dataset=dataset)
            await publish_event(self._bus, self._clock, self._node_id, event)
        return dataset

    async def delete(self, name: str, version: int) -> None:
        """Forget a version; its bytes go once nothing else names them.

        Raises:
            NotFoundError: There is no such dataset or version.
            ConflictError: A job that has not ended reads it.
        """
        dataset = await self._registry.get(name, version)
        await self._registry.remove(dataset, self._clock.now(), self._users)

    async def _users(self, dataset: Dataset) -> list[str]:
        """Jobs that need a version, for people."""
        # A job that names no version takes the newest when it starts.
        names = {dataset.name, f"{dataset.name}:{dataset.version}"}
        return [
            f"job {job.id!r}"
            for job in await unfinished_jobs(self._state)
            if names & {job.spec.train.dataset, job.spec.score.dataset}
        ]

    async def _places(self, split: Split) -> dict[str, Place]:
        size = (await self._store.stat(split.object_id)).size_bytes
        if size < HEADER_LENGTH_BYTES:
            raise DataError("the object is not a safetensors file", object=split.object_id)
        length = header_length(await self._read(split.object_id, 0, HEADER_LENGTH_BYTES))
        if HEADER_LENGTH_BYTES + length > size:
            raise DataError("the object is not a safetensors file", object=split.object_id)
        return parse_header(await self._read(split.object_id, HEADER_LENGTH_BYTES, length))

    async def _read(self, object_id: str, offset: int, length: int) -> bytes:
        return await self._store.read(object_id, offset, length)


def _check_names(request: CreateDatasetRequest) -> None:
    check_name("dataset", request.name)
    names = [check_name("split", split.name) for split in request.splits]
    if not 1 <= len(names) <= _MAX_SPLITS:
        raise InvalidArgumentError(
            f"a dataset with {len(names)} splits", hint=f"1 to {_MAX_SPLITS} splits"
        )
    if len(set(names)) < len(names):
        raise InvalidArgumentError("two splits have the same name", hint="each needs its own")
