"""One leader among equals, with a token that fences off deposed ones."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from lepton_runtime.state import Absent, Created, Delete, Lease, Remove, Snapshot, State, Write

__all__ = ["Election", "Leadership"]


@dataclass(frozen=True)
class Leadership:
    """What a leader holds. Every write of a leader carries `condition` in its own commit.

    Holding a lease is not enough: a paused leader wakes up believing in it, and only the
    condition, checked where the write happens, stops it.
    """

    token: int
    lost: asyncio.Event
    condition: Created


class Election:
    """Campaigns for one key.

    Args:
        state: Where the key lives.
        key: The election.
        node_id: The candidate, stored as the value.
        ttl_s: Seconds without renewal after which another may lead.
    """

    def __init__(self, state: State, key: str, node_id: str, ttl_s: float) -> None:
        self._state = state
        self._key = key
        self._node_id = node_id
        self._ttl_s = ttl_s
        self._lease: Lease | None = None
        self._token = 0

    async def campaign(self) -> Leadership:
        """Wait until this node leads."""
        lease = self._lease = await self._state.lease(self._ttl_s)
        while True:
            won = await self._state.commit(
                [Absent(self._key)], [Write(self._key, self._node_id.encode(), lease)]
            )
            if won is not None:
                self._token = won
                return Leadership(won, lease.lost, Created(self._key, won))
            if not await self._cleared():
                await self._vacancy()
            if lease.lost.is_set():
                lease = self._lease = await self._state.lease(self._ttl_s)

    async def resign(self) -> None:
        """Let another lead at once."""
        if self._lease is not None:
            await self._lease.close()
            self._lease = None

    async def _cleared(self) -> bool:
        """Remove what is left of an earlier term of ours, which a lost lease leaves for a while."""
        ours = Created(self._key, self._token)
        return await self._state.commit([ours], [Remove(self._key)]) is not None

    async def _vacancy(self) -> None:
        async with aclosing(self._state.watch(self._key)) as changes:
            async for change in changes:
                if isinstance(change, Delete):
                    return
                if isinstance(change, Snapshot) and not change.records:
                    return
