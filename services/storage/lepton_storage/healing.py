"""Chunks get their copies back after a node is lost or a copy went bad."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1.storage_pb2 import Chunk, Object
from lepton_runtime.clock import Clock
from lepton_storage.chunks import Chunks
from lepton_storage.copies import Copies
from lepton_storage.manifests import Manifests, Relocation
from lepton_storage.members import Members
from lepton_storage.placement import (
    StorageNode,
    default_replication,
    ranked,
    taking,
    targets,
)

__all__ = ["Absences", "Healer", "Health", "Repair", "health", "plan"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.healing")


_short = Gauge("lepton_storage_under_replicated_chunks", "Chunks with fewer copies than wanted.")
_gone = Gauge("lepton_storage_unreadable_chunks", "Chunks of which no living node has a copy.")


@dataclass(frozen=True)
class Health:
    """How the chunks of the whole cluster stand, as one node sees it.

    Args:
        under_replicated: Chunks with fewer copies on living nodes than wanted.
        unreadable: Those of them with none.
        here: Chunks that objects name on the node that looks.
    """

    under_replicated: int = 0
    unreadable: int = 0
    here: int = 0


def health(manifests: Iterable[Object], living: Mapping[str, StorageNode], me: str) -> Health:
    """Count what lacks copies. A chunk of two objects counts once, by the higher wish."""
    mine: set[bytes] = set()
    default = default_replication(taking(living.values()))
    wanted: dict[bytes, int] = {}
    copies: dict[bytes, int] = {}
    for manifest in manifests:
        for chunk in manifest.chunks:
            asked = manifest.replication or default
            wanted[chunk.hash] = max(wanted.get(chunk.hash, 0), asked)
            here = sum(node in living for node in chunk.nodes)
            copies[chunk.hash] = max(copies.get(chunk.hash, 0), here)
            if me in chunk.nodes:
                mine.add(chunk.hash)
    return Health(
        sum(copies[chunk] < wanted[chunk] for chunk in wanted),
        sum(not count for count in copies.values()),
        len(mine),
    )


@dataclass(frozen=True)
class Repair:
    """Copies that a chunk lacks: `count` more, on the first of `targets` that take them.

    `holders` are the nodes whose copies go on counting: not those that are lost or draining.
    """

    chunk: Chunk
    holders: tuple[str, ...]
    targets: tuple[StorageNode, ...]
    count: int


class Absences:
    """Since when nodes that hold chunks have not been seen."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._since: dict[str, float] = {}

    def lost(
        self,
        now: float,
        named: Collection[str],
        living: Collection[str],
        left_at: Mapping[str, float],
    ) -> set[str]:
        """Those of `named` nodes that have been gone for the grace time: a reboot is no loss.

        Args:
            now: By the monotonic clock.
            named: Nodes that should have chunks.
            living: Those that live.
            left_at: When others were last heard of; one that is not in it is gone since now.
        """
        self._since = {
            node: self._since.get(node, left_at.get(node, now))
            for node in named
            if node not in living
        }
        return {node for node, since in self._since.items() if now - since >= self._grace_s}


def plan(
    manifest: Object, me: str, living: Mapping[str, StorageNode], lost: Collection[str]
) -> list[Repair]:
    """What node `me` should do for an object: it heals the chunks it is the first holder of.

    Args:
        manifest: The object.
        me: This node.
        living: The storage nodes that live.
        lost: Nodes whose copies no longer count.
    """
    repairs = [_repair(chunk, manifest.replication, me, living, lost) for chunk in manifest.chunks]
    return [repair for repair in repairs if repair]


def _repair(
    chunk: Chunk,
    replication: int,
    me: str,
    living: Mapping[str, StorageNode],
    lost: Collection[str],
) -> Repair | None:
    holders = [living[node] for node in chunk.nodes if node in living]
    if not holders or ranked(chunk.hash, holders)[0].id != me:
        return None
    draining = {node.id for node in holders if node.draining}
    counted = [node for node in chunk.nodes if node not in lost and node not in draining]
    missing = (replication or default_replication(taking(living.values()))) - len(counted)
    order = targets(chunk.hash, living.values(), held=holders)
    count = max(min(missing, len(order)), 0)
    # A draining node is let go once the others have all the copies that they can.
    if count == 0 and not (draining and counted):
        return None
    return Repair(chunk, tuple(counted), tuple(order), count)


class Healer:
    """Carries plans out, round after round.

    Args:
        node_id: This node.
        chunks: Its own.
        copies: Makes and finds copies.
        manifests: Where copies are noted.
        members: Nodes that live.
        clock: Measures absences.
        grace_s: How long a node may be gone before its chunks are copied again.
    """

    def __init__(
        self,
        *,
        node_id: str,
        chunks: Chunks,
        copies: Copies,
        manifests: Manifests,
        members: Members,
        clock: Clock,
        grace_s: float,
    ) -> None:
        self._node_id = node_id
        self._chunks = chunks
        self._copies = copies
        self._manifests = manifests
        self._members = members
        self._clock = clock
        self._absences = Absences(grace_s)
        self._health = Health()

    @property
    def health(self) -> Health:
        """How the cluster's chunks stood at the last round."""
        return self._health

    async def attend(self, manifests: Sequence[Object]) -> None:
        """Make up for the copies that objects lack."""
        living = self._members.nodes
        named = {node for item in manifests for chunk in item.chunks for node in chunk.nodes}
        lost = self._absences.lost(self._clock.monotonic(), named, living, self._members.left_at)
        self._tell(health(manifests, living, self._node_id))
        await self._refill(manifests)
        for manifest in manifests:
            repairs = plan(manifest, self._node_id, living, lost)
            if repairs:
                await self._mend(manifest, repairs)

    def _tell(self, seen: Health) -> None:
        self._health = seen
        _short.set(seen.under_replicated)
        _gone.set(seen.unreadable)

    async def _refill(self, manifests: Sequence[Object]) -> None:
        """Fetch what this node should have and does not, such as a copy that was set aside."""
        mine = {
            chunk.hash: (chunk, manifest.tenant)
            for manifest in manifests
            for chunk in manifest.chunks
            if self._node_id in chunk.nodes
        }
        for chunk_hash in await self._chunks.missing(mine):
            chunk, tenant = mine[chunk_hash]
            try:
                await self._chunks.write(chunk_hash, await self._copies.fetch(chunk), tenant)
                _log.info("chunk_refilled", chunk=chunk_hash.hex())
            except (LeptonError, OSError) as error:
                _log.warning("refill_failed", chunk=chunk_hash.hex(), error=str(error))

    async def _mend(self, manifest: Object, repairs: Sequence[Repair]) -> None:
        moves: dict[bytes, Relocation] = {}
        for repair in repairs:
            try:
                made = await self._copy(repair, manifest.tenant)
            except LeptonError as error:
                _log.warning("copy_not_made", object=manifest.id, error=str(error))
            else:
                gone = frozenset(repair.chunk.nodes) - frozenset(repair.holders)
                moves[repair.chunk.hash] = Relocation(gone, tuple(made))
        if moves:
            await self._manifests.moved(manifest.id, moves)
            _log.info("object_healed", object=manifest.id, chunks=len(moves))

    async def _copy(self, repair: Repair, tenant: str) -> list[str]:
        if not repair.count:
            return []
        data = await self._copies.find(repair.chunk)
        return await self._copies.spread(repair.chunk, data, tenant, repair.targets, repair.count)
