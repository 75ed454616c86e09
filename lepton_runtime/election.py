"""One of several leads; who led before cannot write any more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lepton_runtime.state import Absent, Created, Delete, Lease, Snapshot, State, Write

__all__ = ["Election", "Leadership"]


@dataclass(frozen=True)
class Leadership:
    """Having been elected.

    Attributes:
        token: Grows with every election (the election key's create revision).
        lost: Set once this process must no longer act as the leader.
        condition: Goes into every write of the leader: it fails once another has been elected.
    """

    token: int
    lost: asyncio.Event
    condition: Created


class Election:
    """Takes part in the election that a key stands for.

    Args:
        state: Where the key lies.
        key: It holds the leader's id, under the leader's lease.
        node_id: Who stands.
        ttl_s: How long after a leader's death another may be elected.
    """

    def __init__(self, state: State, key: str, node_id: str, ttl_s: float) -> None:
        self._state = state
        self._key = key
        self._node_id = node_id
        self._ttl_s = ttl_s
        self._lease: Lease | None = None

    async def campaign(self) -> Leadership:
        """Wait until elected. Call it again once the leadership is lost.

        Raises:
            UnavailableError: The state does not answer; stand again.
        """
        await self.resign()
        while True:
            await self._vacancy()
            lease = self._lease = await self._state.lease(self._ttl_s)
            write = Write(self._key, self._node_id.encode(), lease)
            revision = await self._state.commit([Absent(self._key)], [write])
            if revision is not None:
                return Leadership(revision, lease.lost, Created(self._key, revision))
            await self.resign()

    async def resign(self) -> None:
        """Let another lead; nothing happens where this one does not."""
        lease, self._lease = self._lease, None
        if lease:
            await lease.close()

    async def _vacancy(self) -> None:
        changes = self._state.watch(self._key)
        try:
            async for change in changes:
                match change:
                    case Snapshot(records=records):
                        if all(record.key != self._key for record in records):
                            return
                    case Delete(key=self._key):
                        return
                    case _:
                        pass
        finally:
            await changes.aclose()
