"""The part of the cluster's state that routing depends on, as it is now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lepton_runtime.state import Delete, Put, Snapshot, State

__all__ = ["Mirror"]


class Mirror:
    """Follows some prefixes. While etcd cannot be reached it keeps what was known last.

    Args:
        state: The truth.
        prefixes: What to follow.
    """

    def __init__(self, state: State, prefixes: Sequence[str]) -> None:
        self._state = state
        self._missing = set(prefixes)
        self._records: dict[str, bytes] = {}
        self._changed = asyncio.Event()

    @property
    def records(self) -> Mapping[str, bytes]:
        """Keys and values."""
        return MappingProxyType(self._records)

    async def follow(self) -> None:
        """Keep up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for prefix in tuple(self._missing):
                tasks.create_task(self._follow(prefix))

    async def wait_changed(self) -> None:
        """Wait for a change since the last wait; the first is that every prefix was read."""
        await self._changed.wait()
        self._changed.clear()

    def touch(self) -> None:
        """Have whoever waits for a change look again."""
        self._changed.set()

    async def _follow(self, prefix: str) -> None:
        async for change in self._state.watch(prefix):
            self._apply(prefix, change)

    def _apply(self, prefix: str, change: Snapshot | Put | Delete) -> None:
        match change:
            case Snapshot(records=records):
                for key in [key for key in self._records if key.startswith(prefix)]:
                    del self._records[key]
                self._records.update((record.key, record.value) for record in records)
                self._missing.discard(prefix)
            case Put(record=record):
                self._records[record.key] = record.value
            case Delete(key=key):
                self._records.pop(key, None)
        if not self._missing:
            self._changed.set()
