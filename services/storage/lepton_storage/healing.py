"""Chunks get their copies back after a node is lost or a copy went bad."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1.storage_pb2 import Chunk, Object
from lepton_runtime.clock import Clock
from lepton_storage.balance import Move, plan_moves
from lepton_storage.copies import Copies
from lepton_storage.disk import Disk
from lepton_storage.manifests import Manifests, Relocation
from lepton_storage.peers import Members
from lepton_storage.placement import StorageNode, default_replication, ranked, targets

__all__ = ["Absences", "Healer", "Health", "Repair", "health", "plan"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.healing")


# Copies handed over to emptier nodes in a round: 256 MiB at most.
_MOVES = 64
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
    default = default_replication(_taking(living))
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

    def lost(self, now: float, named: Collection[str], living: Collection[str]) -> set[str]:
        """Those of `named` nodes that have been gone for the grace time: a reboot is no loss."""
        self._since = {node: self._since.get(node, now) for node in named if node not in living}
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
    missing = (replication or default_replication(_taking(living))) - len(counted)
    order = targets(chunk.hash, living.values(), held=holders)
    count = max(min(missing, len(order)), 0)
    # A draining node is let go once the others have all the copies that they can.
    if count == 0 and not (draining and counted):
        return None
    return Repair(chunk, tuple(counted), tuple(order), count)


def _taking(living: Mapping[str, StorageNode]) -> int:
    """How many nodes take chunks."""
    return sum(not node.draining for node in living.values())


class Healer:
    """Carries plans out, round after round.

    Args:
        node_id: This node.
        disk: Its chunks.
        copies: Makes and finds copies.
        manifests: What must have copies.
        members: Nodes that live.
        clock: Measures absences.
        grace_s: How long a node may be gone before its chunks are copied again.
        garbage_age_s: How old a chunk must be to be removed when no object has it.
        interval_s: Pause between rounds.
    """

    def __init__(
        self,
        *,
        node_id: str,
        disk: Disk,
        copies: Copies,
        manifests: Manifests,
        members: Members,
        clock: Clock,
        grace_s: float,
        garbage_age_s: float,
        interval_s: float,
    ) -> None:
        self._garbage_age_s = garbage_age_s
        self._node_id = node_id
        self._disk = disk
        self._copies = copies
        self._manifests = manifests
        self._members = members
        self._clock = clock
        self._interval_s = interval_s
        self._absences = Absences(grace_s)
        self._health = Health()

    @property
    def health(self) -> Health:
        """How the cluster's chunks stood at the last round."""
        return self._health

    async def run(self) -> None:
        """Heal until cancelled. What fails is logged and tried again in the next round."""
        while True:
            try:
                await self.heal()
            except LeptonError as error:
                _log.warning("healing_failed", error=str(error))
            await self._clock.sleep(self._interval_s)

    async def heal(self) -> None:
        """One round over all objects."""
        manifests = await self._manifests.list()
        living = self._members.nodes
        named = {node for item in manifests for chunk in item.chunks for node in chunk.nodes}
        lost = self._absences.lost(self._clock.monotonic(), named, living)
        self._tell(health(manifests, living, self._node_id))
        await self._refill(manifests)
        await self._collect(manifests)
        for manifest in manifests:
            repairs = plan(manifest, self._node_id, living, lost)
            if repairs:
                await self._mend(manifest.id, repairs)
        for move in plan_moves(manifests, self._node_id, living, _MOVES):
            await self._hand_over(move)

    def _tell(self, seen: Health) -> None:
        self._health = seen
        _short.set(seen.under_replicated)
        _gone.set(seen.unreadable)

    async def _collect(self, manifests: Sequence[Object]) -> None:
        """Remove what no object has here; what is young may be of one that is being stored."""
        named = {
            chunk.hash
            for manifest in manifests
            for chunk in manifest.chunks
            if self._node_id in chunk.nodes
        }
        removed = await self._disk.collect(named, self._clock.now() - self._garbage_age_s)
        if removed:
            _log.info("chunks_removed", count=removed)

    async def _refill(self, manifests: Sequence[Object]) -> None:
        """Fetch what this node should have and does not, such as a copy put in quarantine."""
        mine = {
            chunk.hash: chunk
            for manifest in manifests
            for chunk in manifest.chunks
            if self._node_id in chunk.nodes
        }
        for chunk_hash in await self._disk.missing(mine):
            try:
                await self._disk.write(chunk_hash, await self._copies.fetch(mine[chunk_hash]))
                _log.info("chunk_refilled", chunk=chunk_hash.hex())
            except (LeptonError, OSError) as error:
                _log.warning("refill_failed", chunk=chunk_hash.hex(), error=str(error))

    async def _mend(self, object_id: str, repairs: Sequence[Repair]) -> None:
        moves: dict[bytes, Relocation] = {}
        for repair in repairs:
            try:
                made = await self._copy(repair)
            except LeptonError as error:
                _log.warning("copy_not_made", object=object_id, error=str(error))
            else:
                gone = frozenset(repair.chunk.nodes) - frozenset(repair.holders)
                moves[repair.chunk.hash] = Relocation(gone, tuple(made))
        if moves:
            await self._manifests.moved(object_id, moves)
            _log.info("object_healed", object=object_id, chunks=len(moves))

    async def _hand_over(self, move: Move) -> None:
        """Give a copy to another node; ours goes once it is old and no object names it here."""
        chunk = move.chunk
        try:
            data = await self._copies.find(chunk)
            made = await self._copies.spread(chunk, data, [move.target], 1)
        except LeptonError as error:
            _log.warning("copy_not_moved", chunk=chunk.hash.hex(), error=str(error))
            return
        relocation = Relocation(frozenset([self._node_id]), tuple(made), instead=True)
        for object_id in move.object_ids:
            await self._manifests.moved(object_id, {chunk.hash: relocation})
        _log.info("chunk_moved", chunk=chunk.hash.hex(), target=move.target.id)

    async def _copy(self, repair: Repair) -> list[str]:
        if not repair.count:
            return []
        data = await self._copies.find(repair.chunk)
        return await self._copies.spread(repair.chunk, data, repair.targets, repair.count)
