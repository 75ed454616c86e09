"""Where chunks are kept: on the disks of storage nodes, or in an object store."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lepton_runtime.clock import Clock
from lepton_storage.balance import Balancer
from lepton_storage.bucket import Bucket
from lepton_storage.chunks import Chunks
from lepton_storage.copies import Copies
from lepton_storage.disk import Disk
from lepton_storage.healing import Healer, Health
from lepton_storage.maintenance import Chore
from lepton_storage.manifests import Manifests
from lepton_storage.members import Members
from lepton_storage.peers import Peers
from lepton_storage.placement import StorageNode
from lepton_storage.records import Records
from lepton_storage.scrubbing import Scrubber
from lepton_storage.sealing import Sealer
from lepton_storage.settings import StorageSettings
from lepton_storage.shared import SharedCopies

__all__ = ["Keeping", "Surroundings", "in_object_store", "on_disks"]


@dataclass(frozen=True)
class Surroundings:
    """What keeping chunks stands on."""

    settings: StorageSettings
    clock: Clock
    sealer: Sealer
    members: Members
    peers: Peers
    manifests: Manifests
    records: Records


@dataclass(frozen=True)
class Keeping:
    """A way to keep chunks, and what looking after them that way takes.

    Args:
        chunks: What this node reads and writes.
        copies: Enough of each.
        holders: Living nodes that have chunks, by the names in manifests.
        chores: What each round does for them.
        background: What else runs for as long as the node does.
        health: How the cluster's chunks stand.
    """

    chunks: Chunks
    copies: Copies | SharedCopies
    holders: Callable[[], Mapping[str, StorageNode]]
    chores: Sequence[Chore]
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]]
    health: Callable[[], Health]


def on_disks(around: Surroundings) -> Keeping:
    """Each node has a disk of its own; copies, their healing and their decay are ours."""
    settings, members, clock = around.settings, around.members, around.clock
    disk = Disk(
        settings.data_dir,
        reserve_bytes=settings.reserve_bytes,
        packed_bytes=settings.packed_bytes,
        clock=clock,
    )
    chunks = Chunks(disk, around.sealer)
    copies = Copies(settings.node_id, chunks, members, around.peers)
    healer = Healer(
        node_id=settings.node_id,
        chunks=chunks,
        copies=copies,
        manifests=around.manifests,
        members=members,
        clock=clock,
        grace_s=settings.heal_grace_s,
    )
    scrubber = Scrubber(
        chunks,
        around.records,
        clock,
        bytes_per_s=settings.scrub_bytes_per_s,
        interval_s=settings.scrub_interval_s,
    )
    balancer = Balancer(settings.node_id, copies, around.manifests, members)
    return Keeping(
        chunks=chunks,
        copies=copies,
        holders=lambda: members.nodes,
        chores=[healer, balancer],
        background=[scrubber.run],
        health=lambda: healer.health,
    )


def in_object_store(around: Surroundings) -> Keeping:
    """All nodes share a store; copies, their healing and their decay are the store's."""
    settings, members = around.settings, around.members
    bucket = Bucket(settings.object_store_url, around.clock, settings.garbage_age_s)
    chunks = Chunks(bucket, around.sealer)

    def holders() -> dict[str, StorageNode]:
        me = members.nodes.get(settings.node_id)
        return {settings.holder: replace(me, id=settings.holder)} if me else {}

    return Keeping(
        chunks=chunks,
        copies=SharedCopies(chunks, members),
        holders=holders,
        chores=[],
        background=[],
        health=Health,
    )
