"""Which chunks move to a node that is emptier than others: one that joined takes its share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1.storage_pb2 import Chunk, Object
from lepton_storage.copies import Copies
from lepton_storage.manifests import Manifests, Relocation
from lepton_storage.members import Members
from lepton_storage.placement import StorageNode, ranked

__all__ = ["Balancer", "Move", "plan_moves"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.balance")
# Copies handed over in a round: 256 MiB at most.
_MOVES = 64

# A node takes chunks from another only while it is so much emptier: small differences, which
# come and go, move nothing.
_EMPTIER = 0.8


@dataclass(frozen=True)
class Move:
    """A copy of a chunk that this node hands over to `target`, in all objects that name it."""

    chunk: Chunk
    tenant: str
    object_ids: tuple[str, ...]
    target: StorageNode


def plan_moves(
    manifests: Iterable[Object], me: str, living: Mapping[str, StorageNode], limit: int
) -> list[Move]:
    """What node `me` should hand over, at most `limit` copies.

    A chunk moves only to a node that rendezvous hashing puts before this one, so that a node that
    joined gets the chunks it would have had from the beginning, and never to fewer zones.

    Args:
        manifests: All objects.
        me: This node.
        living: The storage nodes that live.
        limit: Copies moved in a round.
    """
    chunks: dict[bytes, Chunk] = {}
    tenants: dict[bytes, str] = {}
    objects: defaultdict[bytes, list[str]] = defaultdict(list)
    for manifest in manifests:
        for chunk in manifest.chunks:
            chunks[chunk.hash] = chunk
            tenants[chunk.hash] = manifest.tenant
            objects[chunk.hash].append(manifest.id)
    used = _used(chunks.values())
    moves: list[Move] = []
    for chunk in chunks.values():
        if len(moves) == limit or me not in living:
            break
        target = _better(chunk, me, living, used)
        if target is not None:
            used[me] -= chunk.size_bytes
            used[target.id] += chunk.size_bytes
            named_by = tuple(dict.fromkeys(objects[chunk.hash]))
            moves.append(Move(chunk, tenants[chunk.hash], named_by, target))
    return moves


def _better(
    chunk: Chunk, me: str, living: Mapping[str, StorageNode], used: Mapping[str, int]
) -> StorageNode | None:
    if me not in chunk.nodes or any(node not in living for node in chunk.nodes):
        return None  # healing comes first
    mine = _fraction(living[me], used)
    for node in ranked(chunk.hash, living.values()):
        if node.id == me:
            return None
        emptier = _fraction(node, used) < _EMPTIER * mine
        takes = emptier and not node.draining and node.id not in chunk.nodes
        if takes and _zones(chunk, living, me, node) >= _zones(chunk, living, me, living[me]):
            return node
    return None


def _used(chunks: Iterable[Chunk]) -> defaultdict[str, int]:
    used: defaultdict[str, int] = defaultdict(int)
    for chunk in chunks:
        for node in chunk.nodes:
            used[node] += chunk.size_bytes
    return used


def _fraction(node: StorageNode, used: Mapping[str, int]) -> float:
    """How full a node is: its chunks, of these and what is free."""
    return used.get(node.id, 0) / max(used.get(node.id, 0) + node.free_bytes, 1)


def _zones(chunk: Chunk, living: Mapping[str, StorageNode], me: str, instead: StorageNode) -> int:
    """Zones that a chunk's copies are in with `instead` in place of `me`."""
    kept = {living[node].zone for node in chunk.nodes if node != me}
    return len(kept | {instead.zone})


class Balancer:
    """A `Chore` that hands copies over.

    Args:
        node_id: This node.
        copies: Makes and finds copies.
        manifests: Where copies are noted.
        members: Nodes that live.
    """

    def __init__(
        self, node_id: str, copies: Copies, manifests: Manifests, members: Members
    ) -> None:
        self._node_id = node_id
        self._copies = copies
        self._manifests = manifests
        self._members = members

    async def attend(self, manifests: Sequence[Object]) -> None:
        """Give emptier nodes their share of what is here."""
        for move in plan_moves(manifests, self._node_id, self._members.nodes, _MOVES):
            await self._hand_over(move)

    async def _hand_over(self, move: Move) -> None:
        """Give a copy to another node; ours goes once it is old and no object names it here."""
        chunk = move.chunk
        try:
            data = await self._copies.find(chunk)
            made = await self._copies.spread(chunk, data, move.tenant, [move.target], 1)
        except LeptonError as error:
            _log.warning("copy_not_moved", chunk=chunk.hash.hex(), error=str(error))
            return
        relocation = Relocation(frozenset([self._node_id]), tuple(made), instead=True)
        for object_id in move.object_ids:
            await self._manifests.moved(object_id, {chunk.hash: relocation})
        _log.info("chunk_moved", chunk=chunk.hash.hex(), target=move.target.id)
