"""The cluster's truth: a small ordered key-value store with revisions, leases and watches.

`lepton_runtime.etcd` keeps it in etcd, `lepton_runtime.memory` in memory; both behave the same.
Every successful `commit` that changes something raises the store's revision by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from lepton_ai.errors import InvalidArgumentError

__all__ = [
    "Absent",
    "Change",
    "Condition",
    "Created",
    "Delete",
    "Exists",
    "Lease",
    "Operation",
    "Put",
    "Record",
    "Remove",
    "Snapshot",
    "State",
    "Unchanged",
    "Write",
    "check_operations",
]

# etcd's own limit for one transaction.
MAX_OPERATIONS = 128


@dataclass(frozen=True)
class Record:
    """One key with its value, the revision that created it and the one that wrote it last."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int


class Lease(Protocol):
    """Keys written with a lease vanish with it. The state keeps it alive until `close`."""

    @property
    def id(self) -> int:
        """The store's number of this lease."""
        ...

    @property
    def lost(self) -> asyncio.Event:
        """Set once the lease is gone, or could not be renewed within its time to live."""
        ...

    async def close(self) -> None:
        """Give the lease back, and with it every key written under it."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """Every record below a prefix, by key, as of `revision`. Replaces all that was known."""

    records: tuple[Record, ...]
    revision: int


@dataclass(frozen=True)
class Put:
    """A record was written."""

    record: Record


@dataclass(frozen=True)
class Delete:
    """A key was removed, or its lease ended."""

    key: str
    revision: int


Change: TypeAlias = Snapshot | Put | Delete


@dataclass(frozen=True)
class Absent:
    """Holds while the key does not exist."""

    key: str


@dataclass(frozen=True)
class Exists:
    """Holds while the key exists."""

    key: str


@dataclass(frozen=True)
class Unchanged:
    """Holds while the key was last written at this revision (compare-and-swap)."""

    key: str
    mod_revision: int


@dataclass(frozen=True)
class Created:
    """Holds while the key is the very one created at this revision (fencing)."""

    key: str
    create_revision: int


Condition: TypeAlias = Absent | Exists | Unchanged | Created


@dataclass(frozen=True)
class Write:
    """Create or replace a key."""

    key: str
    value: bytes
    lease: Lease | None = None


@dataclass(frozen=True)
class Remove:
    """Remove a key; nothing happens where there is none."""

    key: str


Operation: TypeAlias = Write | Remove


class State(Protocol):
    """The store.

    Raises:
        UnavailableError: From every call, when the store does not answer.
        DeadlineExceededError: From every call, when the answer did not come in time. A `commit`
            may then have happened or not: read before trying again.
    """

    async def get(self, key: str) -> Record | None:
        """Read one key; none where it does not exist."""
        ...

    async def list(self, prefix: str) -> Snapshot:
        """Read every key that begins with `prefix`, at one revision."""
        ...

    async def commit(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> int | None:
        """Do all operations at once if all conditions hold.

        Args:
            conditions: May be empty: then the operations are done in any case.
            operations: At most 128, each on another key.

        Returns:
            The revision after it, or none when a condition failed and nothing was done.

        Raises:
            InvalidArgumentError: More than 128 operations, or two on one key.
            StaleTokenError: A lease that a key should be written with is gone.
        """
        ...

    def watch(self, prefix: str) -> AsyncGenerator[Change, None]:
        """Follow every key that begins with `prefix`, without a gap, until closed.

        The first item is a `Snapshot`. Another may come at any time, where changes were missed:
        it takes the place of everything before it.
        """
        ...

    async def lease(self, ttl_s: float) -> Lease:
        """Take a lease that ends `ttl_s` after this process last renewed it."""
        ...

    async def close(self) -> None:
        """Let go of the store. Leases that were not closed run out by themselves."""
        ...


def check_operations(operations: Sequence[Operation]) -> None:
    """Refuse what no store would take; see `State.commit`."""
    if len(operations) > MAX_OPERATIONS:
        raise InvalidArgumentError(
            f"a transaction of {len(operations)} operations", hint=f"at most {MAX_OPERATIONS}"
        )
    if len({operation.key for operation in operations}) < len(operations):
        raise InvalidArgumentError("a transaction writes one key twice")
