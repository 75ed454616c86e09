"""Work that waits to be done by one of many, and facts that are written once. Both are bounded.

`lepton_runtime.nats_queues` has the real ones (NATS JetStream), `lepton_runtime.memory_queues`
their twins.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Bounds", "Delivery", "Ledger", "Queues", "WorkQueue"]


@dataclass(frozen=True)
class Bounds:
    """What is kept.

    Attributes:
        entries: How many.
        size_bytes: Of all of them together.
        age_s: After this long an entry is forgotten.
    """

    entries: int
    size_bytes: int
    age_s: float


class Delivery(Protocol):
    """A piece of work, handed to one taker. One that goes silent loses it to another."""

    @property
    def payload(self) -> bytes:
        """The work."""
        ...

    @property
    def tries(self) -> int:
        """How often it was handed out, this time included."""
        ...

    async def working(self) -> None:
        """Tell that it is still being done: to be called every two seconds."""
        ...

    async def done(self) -> None:
        """It is finished: nobody gets it again."""
        ...

    async def again(self, pause_s: float) -> None:
        """Give it back, to be handed out anew after a pause."""
        ...


class WorkQueue(Protocol):
    """Work for one of many takers."""

    @property
    def most_bytes(self) -> int:
        """Size of a payload."""
        ...

    async def put(self, key: str, payload: bytes) -> None:
        """Add work. The same key within ten minutes is the same work, and dropped.

        Raises:
            ResourceExhaustedError: The queue is full.
            UnavailableError: Whether it was added is not known.
        """
        ...

    def taken(self) -> AsyncGenerator[Delivery]:
        """Work for this taker, one at a time, for ever and over any outage."""
        ...


class Ledger(Protocol):
    """Facts under keys. The first that is written under a key stays, until it is too old."""

    async def create(self, key: str, value: bytes) -> bool:
        """Write a fact; False where there is one already.

        Raises:
            ResourceExhaustedError: The ledger is full.
            UnavailableError: Whether it was written is not known.
        """
        ...

    async def get(self, key: str) -> bytes | None:
        """The fact under a key.

        Raises:
            UnavailableError: It cannot be read now.
        """
        ...

    async def wait(self, key: str, timeout_s: float) -> bytes | None:
        """The fact under a key, once it is there; None when that takes longer than this.

        Raises:
            UnavailableError: It cannot be read now.
        """
        ...


class Queues(Protocol):
    """Makes queues and ledgers, or finds those that are there."""

    async def work_queue(self, name: str, bounds: Bounds) -> WorkQueue:
        """The queue of that name.

        Raises:
            UnavailableError: It cannot be made now.
        """
        ...

    async def ledger(self, name: str, bounds: Bounds) -> Ledger:
        """The ledger of that name.

        Raises:
            UnavailableError: It cannot be made now.
        """
        ...
