"""Models: published once for each job, as immutable versions."""

from __future__ import annotations

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.names import check_name
from lepton_ai.proto.v1.event_pb2 import ModelPublished
from lepton_ai.proto.v1.storage_pb2 import Model
from lepton_ai.proto.v1.task_pb2 import Task
from lepton_runtime.bus import Bus
from lepton_runtime.clock import Clock
from lepton_runtime.events import publish_event
from lepton_runtime.fencing import still_placed
from lepton_storage.references import objects_of
from lepton_storage.registry import Registry
from lepton_storage.store import ObjectStore

__all__ = ["Models"]

_MAX_CONFIG_BYTES = 256 * 1024


class Models:
    """Publishes models.

    Args:
        registry: Where they are kept.
        store: Where their objects are.
        bus: Told of new ones.
        clock: Tells when they were made.
        node_id: Who says so.
    """

    def __init__(
        self,
        registry: Registry[Model],
        store: ObjectStore,
        bus: Bus,
        clock: Clock,
        node_id: str,
    ) -> None:
        self._registry = registry
        self._store = store
        self._bus = bus
        self._clock = clock
        self._node_id = node_id

    async def publish(self, asked: Model, tenant: str, writer: Task) -> Model:
        """Name stored objects as the next version; the same job gets the same version again.

        Args:
            asked: All but version, tenant and time.
            tenant: Whose it is.
            writer: The attempt that publishes; empty where a person does.

        Raises:
            ConflictError: The attempt was replaced meanwhile.
            InvalidArgumentError: The name is wrong, or no ONNX object is given.
            NotFoundError: An object is not stored.
        """
        await self._check(asked)
        model = Model()
        model.CopyFrom(asked)
        model.tenant = tenant
        model.created_at.FromNanoseconds(int(self._clock.now() * 1e9))
        model, is_new = await self._registry.add(
            model,
            same=lambda version: bool(asked.job_id) and version.job_id == asked.job_id,
            pins=lambda: self._store.pins(objects_of(asked)),
            guards=[still_placed(writer)] if writer.id else [],
        )
        if is_new:
            event = ModelPublished(model=model)
            await publish_event(self._bus, self._clock, self._node_id, event)
        return model

    async def _check(self, model: Model) -> None:
        check_name("model", model.name)
        if not model.onnx_object:
            raise InvalidArgumentError("a model needs onnx_object", hint="the id of its ONNX file")
        if len(model.model_config.encode()) > _MAX_CONFIG_BYTES:
            raise InvalidArgumentError(
                "model_config is too large", hint=f"at most {_MAX_CONFIG_BYTES} bytes"
            )
        for object_id in objects_of(model):
            await self._store.stat(object_id)
