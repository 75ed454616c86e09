"""Events, logs and progress: streams of messages that may be lost and never hold work up.

`lepton_runtime.nats` carries them over NATS JetStream, `lepton_runtime.memory` in memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from lepton_ai.errors import InvalidArgumentError

__all__ = [
    "EVENTS",
    "JOBS",
    "STREAMS",
    "Bus",
    "Message",
    "Stream",
    "event_subject",
    "log_subject",
    "matches",
    "progress_subject",
    "stream_of",
]


@dataclass(frozen=True)
class Stream:
    """A named, bounded sequence of messages. The oldest go first when a bound is met."""

    name: str
    subject: str
    max_size_bytes: int
    max_age_s: float


EVENTS = Stream("LEPTON_EVENTS", "lepton.v1.events.>", 64 << 20, 86_400)
JOBS = Stream("LEPTON_JOBS", "lepton.v1.jobs.>", 512 << 20, 7 * 86_400)
STREAMS = (EVENTS, JOBS)


@dataclass(frozen=True)
class Message:
    """One message; `sequence` counts up within its stream, across all its subjects."""

    subject: str
    payload: bytes
    sequence: int


class Bus(Protocol):
    """Publish and subscribe. Subjects may hold wildcards (`*`, `>`) only in subscriptions."""

    async def publish(self, subject: str, payload: bytes, *, message_id: str | None = None) -> None:
        """Send a message, at most once; when the bus does not take it, log that and go on.

        Args:
            subject: Within one of `STREAMS`.
            payload: The message.
            message_id: A second message of the same id is dropped for a while.
        """
        ...

    def subscribe_new(self, subject: str) -> AsyncGenerator[Message, None]:
        """Messages published after iteration began. Goes on over restarts of the broker."""
        ...

    def subscribe_all(self, subject: str, after_sequence: int = 0) -> AsyncGenerator[Message, None]:
        """The kept messages later than `after_sequence`, then new ones as they come."""
        ...

    async def close(self) -> None:
        """Let go of the broker."""
        ...


def event_subject(name: str) -> str:
    """Where events of one kind are published, such as ``NodeJoined``."""
    return f"lepton.v1.events.{name}"


def log_subject(job_id: str) -> str:
    """Where the `LogLine`s of a job are published."""
    return f"lepton.v1.jobs.{job_id}.logs"


def progress_subject(job_id: str) -> str:
    """Where the `JobProgress` of a job is published."""
    return f"lepton.v1.jobs.{job_id}.progress"


def matches(pattern: str, subject: str) -> bool:
    """Whether `subject` falls under `pattern`: `*` stands for one token, `>` for all the rest.

    Example:
        >>> matches("lepton.v1.jobs.*.logs", "lepton.v1.jobs.j-1.logs")
        True
    """
    for wanted, token in zip_longest(pattern.split("."), subject.split(".")):
        if wanted == ">" and token is not None:
            return True
        if wanted is None or token is None or wanted not in ("*", token):
            return False
    return True


def stream_of(subject: str) -> Stream:
    """The stream that keeps a subject.

    Raises:
        InvalidArgumentError: No stream does.
    """
    for stream in STREAMS:
        if matches(stream.subject, subject):
            return stream
    allowed = ", ".join(stream.subject for stream in STREAMS)
    raise InvalidArgumentError(f"no stream keeps subject '{subject}'", hint=f"one of {allowed}")
