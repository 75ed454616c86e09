"""Where work fits: pure arithmetic over what nodes offer and what is placed on them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lepton_ai.proto.v1 import node_pb2, task_pb2

__all__ = ["Claim", "Rooms", "how_many"]

_ROUNDING = 1e-9
_MANY = 1_000  # of what asks for nothing
_ANY: Mapping[str, str] = {}


@dataclass(frozen=True)
class Claim:
    """A replica that found no room.

    Args:
        need: What it asks for.
        taken: Nodes that have one of its kind already.
        labels: What a node must be labelled with.
    """

    need: node_pb2.Resources
    taken: frozenset[str]
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


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


class _Pool:
    """Nodes with certain labels, in the order in which they are looked at.

    By free accelerators, then in order of free processors, the most first: the best place is among
    the first looked at, however many nodes there are.
    """

    def __init__(self, rooms: Mapping[str, _Room]) -> None:
        self._rooms = dict(rooms)
        self._order: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
        for node_id, room in rooms.items():
            self._order[room.gpus].append((-room.cpus, node_id))
        for places in self._order.values():
            places.sort()

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._rooms

    def add(self, node_id: str) -> None:
        """A node is where its free room puts it."""
        room = self._rooms[node_id]
        insort(self._order[room.gpus], (-room.cpus, node_id))

    def discard(self, node_id: str) -> None:
        """A node is nowhere while its free room changes."""
        room = self._rooms[node_id]
        places = self._order[room.gpus]
        del places[bisect_left(places, (-room.cpus, node_id))]

    def first(self, need: node_pb2.Resources, load: Mapping[str, int]) -> str | None:
        """The best node that fits and has no load."""
        for gpus in sorted(self._order, reverse=need.gpus > 0):
            for negative_cpus, node_id in self._order[gpus]:
                if need.cpus > _ROUNDING - negative_cpus:
                    break  # and the others have less
                if not load.get(node_id) and self._rooms[node_id].fits(need):
                    return node_id
        return None


class Rooms:
    """What is free on each worker, kept up to date while decisions are being made.

    Invariant: no node is ever given more than it offers.
    """

    def __init__(
        self, workers: Mapping[str, node_pb2.Node], tasks: Iterable[task_pb2.Task]
    ) -> None:
        self._workers = dict(workers)
        self._rooms = {
            node.id: _Room(node.capacity.cpus, node.capacity.memory_bytes, node.capacity.gpus)
            for node in workers.values()
        }
        for task in tasks:
            if task.node_id in self._rooms:
                self._rooms[task.node_id].take(task.resources, 1)
        self._pools: dict[frozenset[tuple[str, str]], _Pool] = {}

    def take(self, node_id: str, need: node_pb2.Resources) -> None:
        """Count `need` as used on a node; a node that is gone has nothing to count."""
        self._change(node_id, need, 1)

    def give_back(self, node_id: str, need: node_pb2.Resources) -> None:
        """Count `need` as free again."""
        self._change(node_id, need, -1)

    def close(self, node_id: str) -> None:
        """Give nothing more to a node."""
        self._rooms.pop(node_id, None)
        self._pools.clear()  # seldom, and then for a few nodes

    def fits(
        self, node_id: str, need: node_pb2.Resources, labels: Mapping[str, str] = _ANY
    ) -> bool:
        """Whether a node has room and these labels; one that takes no new work has none."""
        return (
            node_id in self._rooms
            and self._rooms[node_id].fits(need)
            and self._has(node_id, labels.items())
        )

    def choose(
        self,
        need: node_pb2.Resources,
        load: Mapping[str, int],
        labels: Mapping[str, str] = _ANY,
        *,
        at_most: int | None = None,
    ) -> str | None:
        """The node for one more task, or None where it fits nowhere.

        Nodes that run the fewest of its kind come first; among them those with the fewest free
        accelerators, or the most for a task that needs one, and then those with the most free
        processors.

        Args:
            need: What the task asks for.
            load: Tasks of the same job or deployment on each node: they are spread.
            labels: What the node must be labelled with.
            at_most: How many of them one node may have.
        """
        node_id = self._pool(labels).first(need, load)
        if node_id is not None:
            return node_id
        fitting = [
            (count, *self._rank(node_id, need))
            for node_id, count in load.items()
            if (at_most is None or count < at_most) and self.fits(node_id, need, labels)
        ]
        return min(fitting)[-1] if fitting else None

    def soonest(self, need: node_pb2.Resources, count: int, labels: Mapping[str, str]) -> list[str]:
        """Nodes that could run `count` such tasks if they were empty, the emptiest of those.

        Empty where no nodes could.
        """
        found: list[str] = []
        for node_id in sorted(self._rooms, key=lambda node_id: self._rank(node_id, need)):
            capacity = self._workers[node_id].capacity
            if self._has(node_id, labels.items()) and (most := how_many(capacity, need)):
                found.append(node_id)
                count -= most
            if count <= 0:
                return found
        return []

    def _pool(self, labels: Mapping[str, str]) -> _Pool:
        wanted = frozenset(labels.items())
        if wanted not in self._pools:
            rooms = {name: room for name, room in self._rooms.items() if self._has(name, wanted)}
            self._pools[wanted] = _Pool(rooms)
        return self._pools[wanted]

    def _has(self, node_id: str, labels: Iterable[tuple[str, str]]) -> bool:
        mine = self._workers[node_id].labels
        return all(name in mine and mine[name] == text for name, text in labels)

    def _rank(self, node_id: str, need: node_pb2.Resources) -> tuple[int, float, str]:
        room = self._rooms[node_id]
        return (-room.gpus if need.gpus else room.gpus, -room.cpus, node_id)

    def _change(self, node_id: str, need: node_pb2.Resources, sign: int) -> None:
        room = self._rooms.get(node_id)
        if room is None:
            return
        pools = [pool for pool in self._pools.values() if node_id in pool]
        for pool in pools:
            pool.discard(node_id)
        room.take(need, sign)
        for pool in pools:
            pool.add(node_id)


def how_many(capacity: node_pb2.Resources, need: node_pb2.Resources) -> int:
    """Tasks that need so much which an empty node can run."""
    limits = [
        offered / asked
        for offered, asked in (
            (capacity.cpus, need.cpus),
            (capacity.memory_bytes, need.memory_bytes),
            (capacity.gpus, need.gpus),
        )
        if asked
    ]
    return int(min(limits, default=_MANY) + _ROUNDING)
