"""Storage nodes that are to be emptied before they are switched off."""

from __future__ import annotations

from lepton_ai.errors import ConflictError, NotFoundError
from lepton_ai.names import check_name
from lepton_ai.proto.v1.node_pb2 import NODE_ROLE_STORAGE, Node
from lepton_runtime import keys
from lepton_runtime.state import Remove, State, Write

__all__ = ["Draining"]


class Draining:
    """Marks nodes. Every storage node follows the marks; healing does the work."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def start(self, node_id: str) -> None:
        """Have a node give its chunks to the others.

        Raises:
            NotFoundError: No such storage node is alive.
            ConflictError: No other could take them.
        """
        check_name("node", node_id)
        records = (await self._state.list(keys.NODES)).records
        nodes = [Node.FromString(record.value) for record in records]
        storing = {node.id for node in nodes if node.role == NODE_ROLE_STORAGE}
        if node_id not in storing:
            known = ", ".join(sorted(storing))
            raise NotFoundError(f"storage node {node_id!r} is not alive", hint=f"alive: {known}")
        marks = (await self._state.list(keys.DRAINING)).records
        if not storing - {node_id} - {record.key.removeprefix(keys.DRAINING) for record in marks}:
            raise ConflictError(
                f"no other storage node could take the chunks of {node_id!r}", hint="add one first"
            )
        await self._state.commit([], [Write(keys.draining(node_id), b"")])

    async def stop(self, node_id: str) -> None:
        """Let a node take chunks again; also when it was not draining."""
        check_name("node", node_id)
        await self._state.commit([], [Remove(keys.draining(node_id))])
