"""Where work fits: pure arithmetic over what nodes offer and what is placed on them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lepton_ai.proto.v1 import node_pb2, task_pb2

__all__ = ["Claim", "Rooms"]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Claim:
    """A replica that found no room.

    Args:
        need: What it asks for.
        taken: Nodes that have one of its kind already.
    """

    need: node_pb2.Resources
    taken: frozenset[str]


@dataclass
class _Room:
    cpus: float
    memory_bytes: int
    gpus: int

    def fits(self, need: node_pb2.Resources) -> bool:
        return (
            need.cpus <= self.cpus + _ROUNDING
            and need.memory_bytes <= self.memory_bytes
            and need.gpus <= self.gpus
        )

    def take(self, need: node_pb2.Resources, sign: int) -> None:
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
            if task.node_id in self._rooms:
                self._rooms[task.node_id].take(task.resources, 1)
        # By free accelerators, then in order of free processors, the most first: the best place is
        # among the first looked at, however many nodes there are.
        self._order: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
        for node_id, room in self._rooms.items():
            self._order[room.gpus].append((-room.cpus, node_id))
        for places in self._order.values():
            places.sort()

    def take(self, node_id: str, need: node_pb2.Resources) -> None:
        """Count `need` as used on a node; a node that is gone has nothing to count."""
        self._change(node_id, need, 1)

    def give_back(self, node_id: str, need: node_pb2.Resources) -> None:
        """Count `need` as free again."""
        self._change(node_id, need, -1)

    def fits(self, node_id: str, need: node_pb2.Resources) -> bool:
        """Whether a node has room; one that takes no new work has none."""
        return node_id in self._rooms and self._rooms[node_id].fits(need)

    def choose(
        self, need: node_pb2.Resources, load: Mapping[str, int], *, at_most: int | None = None
    ) -> str | None:
        """The node for one more task, or None where it fits nowhere.

        Nodes that run the fewest of its kind come first; among them those with the fewest free
        accelerators, or the most for a task that needs one, and then those with the most free
        processors.

        Args:
            need: What the task asks for.
            load: Tasks of the same job or deployment on each node: they are spread.
            at_most: How many of them one node may have.
        """
        for gpus in sorted(self._order, reverse=need.gpus > 0):
            node_id = self._first(self._order[gpus], need, load)
            if node_id is not None:
                return node_id
        fitting = [
            (count, *self._rank(node_id, need))
            for node_id, count in load.items()
            if (at_most is None or count < at_most) and self.fits(node_id, need)
        ]
        return min(fitting)[-1] if fitting else None

    def _first(
        self, places: list[tuple[float, str]], need: node_pb2.Resources, load: Mapping[str, int]
    ) -> str | None:
        """The first of `places` that fits and has no load."""
        for negative_cpus, node_id in places:
            if need.cpus > _ROUNDING - negative_cpus:
                return None  # and the others have less
            if not load.get(node_id) and self._rooms[node_id].fits(need):
                return node_id
        return None

    def _rank(self, node_id: str, need: node_pb2.Resources) -> tuple[int, float, str]:
        room = self._rooms[node_id]
        return (-room.gpus if need.gpus else room.gpus, -room.cpus, node_id)

    def _change(self, node_id: str, need: node_pb2.Resources, sign: int) -> None:
        room = self._rooms.get(node_id)
        if room is None:
            return
        places = self._order[room.gpus]
        del places[bisect_left(places, (-room.cpus, node_id))]
        room.take(need, sign)
        insort(self._order[room.gpus], (-room.cpus, node_id))
