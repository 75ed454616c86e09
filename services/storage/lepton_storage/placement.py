"""Which nodes keep a chunk: rendezvous hashing weighted by free space, spread over zones.

Each node draws a number from the hash of its name and the chunk's, and the highest draws win,
so that a node that comes or goes moves only its own share. The weighted draw is Schindelhauer
and Schomaker's logarithmic method: -weight / ln(u), with u uniform in (0, 1).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3

from lepton_ai.proto.v1.node_pb2 import Node

__all__ = ["StorageNode", "default_replication", "ranked", "storage_node", "taking", "targets"]

_DRAWS = 2**64


@dataclass(frozen=True)
class StorageNode:
    """A living node that keeps chunks. Nodes of one zone are expected to fail together.

    One that is `draining` gives what it has and takes nothing.
    """

    id: str
    address: str
    data_address: str
    zone: str
    free_bytes: int
    draining: bool = False


def storage_node(node: Node) -> StorageNode:
    """What placement needs of a member. Without a ``zone`` label a node is its own zone."""
    zone = node.labels.get("zone", node.id)
    return StorageNode(node.id, node.address, node.data_address, zone, node.disk_free_bytes)


def taking(nodes: Iterable[StorageNode]) -> int:
    """How many of them take chunks: all but those that are to be emptied."""
    return sum(not node.draining for node in nodes)


def default_replication(living: int) -> int:
    """Copies of a chunk where nobody asked for a number, on so many nodes."""
    return 3 if living >= 3 else 2


def ranked(chunk_hash: bytes, nodes: Iterable[StorageNode]) -> list[StorageNode]:
    """`nodes` in the order in which they should keep the chunk."""
    return sorted(nodes, key=lambda node: _draw(chunk_hash, node), reverse=True)


def targets(
    chunk_hash: bytes, nodes: Iterable[StorageNode], held: Sequence[StorageNode]
) -> list[StorageNode]:
    """Where further copies should go, best first, when `held` have one already."""
    copies = Counter(node.zone for node in held)
    taking = (node for node in nodes if node not in held and not node.draining)
    remaining = ranked(chunk_hash, taking)
    ordered: list[StorageNode] = []
    while remaining:
        # Of equally used zones the first is taken, so rank decides.
        best = min(remaining, key=lambda node: copies[node.zone])
        remaining.remove(best)
        ordered.append(best)
        copies[best.zone] += 1
    return ordered


def _draw(chunk_hash: bytes, node: StorageNode) -> tuple[float, str]:
    number = int.from_bytes(blake3(node.id.encode() + b"\0" + chunk_hash).digest(8), "big")
    uniform = (number + 0.5) / _DRAWS
    # Rounding may give 1.0 for the very highest draws, whose logarithm would divide by zero.
    logarithm = math.log(min(uniform, 1 - 2**-53))
    return -max(node.free_bytes, 1) / logarithm, node.id
