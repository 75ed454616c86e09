"""Which workers take no new work, and which are to be emptied."""

from __future__ import annotations

from lepton_ai.errors import NotFoundError
from lepton_ai.names import check_name
from lepton_ai.proto.v1 import node_pb2
from lepton_runtime import keys
from lepton_runtime.state import Remove, State, Write

__all__ = ["WorkerMarks"]


class WorkerMarks:
    """Marks workers. The leader follows the marks, which outlive the worker's restarts."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def cordon(self, node_id: str) -> None:
        """Give a worker no new work.

        Raises:
            NotFoundError: No such worker is alive.
        """
        await self._check(node_id)
        await self._state.commit([], [Write(keys.cordoned(node_id), b"")])

    async def drain(self, node_id: str) -> None:
        """Move what runs on a worker to others, and give it no new work.

        Raises:
            NotFoundError: No such worker is alive.
        """
        await self._check(node_id)
        await self._state.commit([], [Write(keys.draining(node_id), b"")])

    async def uncordon(self, node_id: str) -> None:
        """Give a worker new work again; also when it is away, or was not marked.

        Raises:
            NotFoundError: The node is no worker.
        """
        check_name("node", node_id)
        record = await self._state.get(keys.node(node_id))
        if record is not None:
            _check_role(node_pb2.Node.FromString(record.value))
        marks = [Remove(keys.cordoned(node_id)), Remove(keys.draining(node_id))]
        await self._state.commit([], marks)

    async def marked(self, prefix: str) -> set[str]:
        """Ids of the nodes that have a mark.

        Args:
            prefix: `keys.CORDONED` or `keys.DRAINING`.
        """
        records = (await self._state.list(prefix)).records
        return {record.key.removeprefix(prefix) for record in records}

    async def _check(self, node_id: str) -> None:
        check_name("node", node_id)
        record = await self._state.get(keys.node(node_id))
        if record is None:
            raise NotFoundError(f"worker {node_id!r} is not alive", hint="see 'lepton nodes'")
        _check_role(node_pb2.Node.FromString(record.value))


def _check_role(node: node_pb2.Node) -> None:
    if node.role == node_pb2.NODE_ROLE_STORAGE:
        raise NotFoundError(
            f"{node.id!r} is a storage node, not a worker", hint="see 'lepton storage drain'"
        )
    if node.role != node_pb2.NODE_ROLE_WORKER:
        raise NotFoundError(f"{node.id!r} is not a worker", hint="see 'lepton nodes'")
