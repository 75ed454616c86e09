"""The cluster's truth: keys with revisions, leases, watches and guarded commits.

The interface is what services need of etcd (v3 API), no more. `lepton_runtime.etcd` is the real
one, `lepton_runtime.memory` its twin for tests; both pass the same contract tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

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
]


@dataclass(frozen=True)
class Record:
    """A key as it is stored."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int


@dataclass(frozen=True)
class Snapshot:
    """Everything below a prefix at one revision. In a watch it replaces all that came before."""

    records: tuple[Record, ...]
    revision: int


@dataclass(frozen=True)
class Put:
    """A watched key was written."""

    record: Record


@dataclass(frozen=True)
class Delete:
    """A watched key is gone."""

    key: str
    revision: int


Change = Snapshot | Put | Delete


class Lease(Protocol):
    """Keys written under a lease vanish when its owner stops renewing it."""

    @property
    def lost(self) -> asyncio.Event:
        """Set once the lease has run out or was closed; it never comes back."""
        ...

    async def close(self) -> None:
        """Give the lease up now; its keys vanish at once."""
        ...


@dataclass(frozen=True)
class Write:
    """Put `value` at `key`; with a lease, only for as long as that lives."""

    key: str
    value: bytes
    lease: Lease | None = None


@dataclass(frozen=True)
class Remove:
    """Delete `key` if it is there."""

    key: str


Operation = Write | Remove


@dataclass(frozen=True)
class Absent:
    """Holds while `key` does not exist."""

    key: str


@dataclass(frozen=True)
class Exists:
    """Holds while `key` exists."""

    key: str


@dataclass(frozen=True)
class Unchanged:
    """Holds while `key` was last written at `mod_revision`."""

    key: str
    mod_revision: int


@dataclass(frozen=True)
class Created:
    """Holds while `key` is the one created at `create_revision`: the fencing condition."""

    key: str
    create_revision: int


Condition = Absent | Exists | Unchanged | Created

# etcd's own limit for one transaction (--max-txn-ops).
MAX_OPERATIONS = 128


class State(Protocol):
    """Linearizable key-value state. Every call has a deadline.

    Raises:
        UnavailableError: The state cannot be reached.
        DeadlineExceededError: It did not answer in time.
    """

    async def get(self, key: str) -> Record | None:
        """The record at `key`, or None."""
        ...

    async def list(self, prefix: str) -> Snapshot:
        """All records whose keys begin with `prefix`, ordered by key."""
        ...

    async def commit(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> int | None:
        """Apply all operations if all conditions hold, in one transaction.

        Returns:
            The new revision, or None when a condition did not hold and nothing was done.

        Raises:
            InvalidArgumentError: More than 128 operations, or two on the same key.
            UnavailableError: A lease to write with has run out.
        """
        ...

    def watch(self, prefix: str) -> AsyncGenerator[Change]:
        """Follow a prefix: a `Snapshot` first, then changes in order, for ever.

        After a lost connection or a compaction another `Snapshot` comes, so that a follower that
        replaces its view with it is always right.
        """
        ...

    async def lease(self, ttl_s: float) -> Lease:
        """A lease that is renewed until it is closed or the state cannot be reached."""
        ...

    async def close(self) -> None:
        """Close the connection and every lease."""
        ...
