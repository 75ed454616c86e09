"""Events: published without waiting for anyone, kept for a while, never the truth.

`lepton_runtime.nats` is the real bus (NATS JetStream), `lepton_runtime.memory` its twin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Bus", "Message", "job_logs", "job_progress"]

EVENTS = "lepton.v1.events"
JOBS = "lepton.v1.jobs"
SERVING = "lepton.v1.serving"


@dataclass(frozen=True)
class Message:
    """What was published, and its position in the stream (1, 2, 3 …; 0 for what is not kept)."""

    subject: str
    payload: bytes
    sequence: int


class Bus(Protocol):
    """Publishes and subscribes. A subject may end in ``>`` or hold ``*`` to match tokens."""

    async def publish(self, subject: str, payload: bytes, *, message_id: str | None = None) -> bool:
        """Publish; a second message with the same id is dropped.

        A failure is logged and the message lost: state is the truth, a message only news of it.

        Returns:
            Whether the broker has it.
        """
        ...

    def subscribe_new(self, subject: str) -> AsyncIterator[Message]:
        """Messages published from now on."""
        ...

    def subscribe_all(self, subject: str, after_sequence: int = 0) -> AsyncIterator[Message]:
        """Kept messages after a sequence, then new ones."""
        ...

    async def kept(self, subject: str, after_sequence: int = 0) -> list[Message]:
        """Kept messages after a sequence, without waiting for new ones."""
        ...

    async def say(self, subject: str, payload: bytes) -> None:
        """Publish to whoever listens now; kept by nobody, and lost when the broker is away."""
        ...

    def listen(self, subject: str) -> AsyncIterator[Message]:
        """What is said from now on. Whoever is slow misses some of it."""
        ...

    async def close(self) -> None:
        """End every subscription."""
        ...


def job_logs(job_id: str) -> str:
    """Subject of what a job's processes print."""
    return f"{JOBS}.{job_id}.logs"


def job_progress(job_id: str) -> str:
    """Subject of how far a job is."""
    return f"{JOBS}.{job_id}.progress"
