"""Tell whoever listens what happened."""

from __future__ import annotations

import uuid

from google.protobuf.message import Message as ProtoMessage

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1 import event_pb2
from lepton_runtime.bus import Bus, event_subject
from lepton_runtime.clock import Clock

__all__ = ["publish_event"]

_FIELD_BY_MESSAGE = {
    field.message_type.full_name: field.name
    for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["event"].fields
}


async def publish_event(bus: Bus, clock: Clock, source: str, message: ProtoMessage) -> None:
    """Publish `message` as an `Event`. A lost event is only a lost wake-up.

    Args:
        bus: Where to.
        clock: Says when it happened.
        source: Id of the node that says so.
        message: One of the messages in `Event.event`, such as `NodeJoined`.

    Raises:
        InvalidArgumentError: The message is no event.
    """
    name = message.DESCRIPTOR.full_name
    if name not in _FIELD_BY_MESSAGE:
        raise InvalidArgumentError(
            f"{name} is no event", hint=f"one of {', '.join(_FIELD_BY_MESSAGE)}"
        )
    event = event_pb2.Event(id=uuid.uuid4().hex, source=source)
    event.at.FromNanoseconds(int(clock.now() * 1e9))
    getattr(event, _FIELD_BY_MESSAGE[name]).CopyFrom(message)
    subject = event_subject(message.DESCRIPTOR.name)
    await bus.publish(subject, event.SerializeToString(), message_id=event.id)
