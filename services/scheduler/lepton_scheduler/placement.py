"""Where work fits: pure arithmetic over what nodes offer and what is placed on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lepton_ai.proto.v1 import node_pb2, task_pb2

__all__ = ["Rooms"]


@dataclass
class _Room:
    cpus: float
    memory_bytes: int
    gpus: int

    def fits(self, need: node_pb2.Resources) -> bool:
        return (
            need.cpus <= self.cpus + 1e-9
            and need.memory_bytes <= self.memory_bytes
            and need.gpus <= self.gpus
        )

    def take(self, need: node_pb2.Resources, sign: int = 1) -> None:
        self.cpus -= sign * need.cpus
        self.memory_bytes -= sign * need.memory_bytes
        self.gpus -= sign * need.gpus


class Rooms:
    """What is free on each worker, kept up to date while decisions are being made.

    Invariant: no node is ever given more than it offers.
    """

    def __init__(
        self, workers: Mapping[str, node_pb2.Node], tasks: Iterable[task_pb2.Task]
    ) -> None:
        self._rooms = {
            node.id: _Room(node.capacity.cpus, node.capacity.memory_bytes, node.capacity.gpus)
            for node in workers.values()
        }
        for task in tasks:
            self.take(task.node_id, task.resources)

    def take(self, node_id: str, need: node_pb2.Resources) -> None:
        """Count `need` as used on a node; a node that is gone has nothing to count."""
        if node_id in self._rooms:
            self._rooms[node_id].take(need)

    def give_back(self, node_id: str, need: node_pb2.Resources) -> None:
        """Count `need` as free again."""
        if node_id in self._rooms:
            self._rooms[node_id].take(need, sign=-1)

    def choose(
        self, need: node_pb2.Resources, load: Mapping[str, int], *, at_most: int | None = None
    ) -> str | None:
        """The node for one more task, or None where it fits nowhere.

        Args:
            need: What the task asks for.
            load: Tasks of the same job or deployment on each node: they are spread.
            at_most: How many of them one node may have.
        """
        fitting = [
            (load.get(node_id, 0), -room.gpus if need.gpus else room.gpus, -room.cpus, node_id)
            for node_id, room in self._rooms.items()
            if room.fits(need) and (at_most is None or load.get(node_id, 0) < at_most)
        ]
        return min(fitting)[-1] if fitting else None
