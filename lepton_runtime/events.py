"""Events as messages on the bus."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1 import event_pb2
from lepton_runtime.bus import EVENTS, Bus
from lepton_runtime.clock import Clock

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["publish_event"]

_FIELDS = {
    field.message_type.name: field.name
    for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["event"].fields
    if field.message_type
}


async def publish_event(bus: Bus, clock: Clock, source: str, message: Message) -> None:
    """Publish `message`, one of the kinds an `Event` holds, as said by node `source`.

    Raises:
        InvalidArgumentError: An `Event` holds no such message.
    """
    name = message.DESCRIPTOR.name
    if name not in _FIELDS:
        raise InvalidArgumentError(f"{name} is no event", hint=f"one of {', '.join(_FIELDS)}")
    event = event_pb2.Event(id=uuid.uuid4().hex, source=source)
    event.at.FromNanoseconds(int(clock.now() * 1e9))
    getattr(event, _FIELDS[name]).CopyFrom(message)
    await bus.publish(f"{EVENTS}.{name}", event.SerializeToString(), message_id=event.id)
