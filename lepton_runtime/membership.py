"""A node's own record: there while the node lives, gone within its time to live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1.node_pb2 import Node
from lepton_runtime import keys
from lepton_runtime.state import Lease, State, Write

__all__ = ["NODE_TTL_S", "Membership", "join"]

NODE_TTL_S = 3.0
Returning = Callable[[], Awaitable[None]]
_RETRY_S = 0.5

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Membership:
    """A registered node. Made by `join`."""

    def __init__(
        self, state: State, node: Node, ttl_s: float, lease: Lease, returning: Returning
    ) -> None:
        self._returning = returning
        self._state = state
        self._node = node
        self._ttl_s = ttl_s
        self._lease = lease
        self._keeper = asyncio.create_task(self._keep(), name="membership")

    @property
    def node(self) -> Node:
        """A copy of the record as it was registered last."""
        node = Node()
        node.CopyFrom(self._node)
        return node

    async def update(self, node: Node) -> None:
        """Replace the record, for instance when the free disk changes."""
        self._node = node
        await _register(self._state, node, self._lease)

    async def leave(self) -> None:
        """Remove the record now, rather than when its lease runs out."""
        self._keeper.cancel()
        await asyncio.wait([self._keeper])
        await self._lease.close()

    async def _keep(self) -> None:
        while True:
            await self._lease.lost.wait()
            _log.warning("membership_lost", node_id=self._node.id)
            try:
                await self._returning()
                self._lease = await self._state.lease(self._ttl_s)
                await _register(self._state, self._node, self._lease)
                _log.info("membership_regained", node_id=self._node.id)
            except LeptonError as error:
                _log.warning("membership_retry", node_id=self._node.id, error=str(error))
                await asyncio.sleep(_RETRY_S)


async def _nothing() -> None:
    pass


async def join(
    state: State, node: Node, ttl_s: float = NODE_TTL_S, returning: Returning = _nothing
) -> Membership:
    """Register `node` and keep it registered, also after its lease was lost, until `leave`.

    Args:
        state: Where members are registered.
        node: Its record.
        ttl_s: Seconds of silence after which it counts as lost.
        returning: Called before it is registered again, when others may have taken its work.

    Raises:
        UnavailableError: The state does not answer.
    """
    lease = await state.lease(ttl_s)
    await _register(state, node, lease)
    return Membership(state, node, ttl_s, lease, returning)


async def _register(state: State, node: Node, lease: Lease) -> None:
    await state.commit([], [Write(keys.node(node.id), node.SerializeToString(), lease)])
