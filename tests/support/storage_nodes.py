"""Storage nodes in one process: real files, in-memory state, no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lepton_ai.chunking import CHUNK_BYTES, digest, object_id, spans
from lepton_ai.errors import LeptonError, UnavailableError
from lepton_ai.proto.v1.node_pb2 import NODE_ROLE_STORAGE, Node
from lepton_ai.proto.v1.storage_pb2 import Chunk, CommitObjectRequest, ListChunksResponse, Object
from lepton_runtime import keys
from lepton_runtime.clock import Clock, ManualClock, SystemClock
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Remove, Write
from lepton_storage.balance import Balancer
from lepton_storage.checking import listed
from lepton_storage.chunks import Chunks
from lepton_storage.collecting import Collector
from lepton_storage.copies import Copies
from lepton_storage.disk import Disk
from lepton_storage.forgetting import Forgetter
from lepton_storage.healing import Healer
from lepton_storage.maintenance import Chore, Maintenance
from lepton_storage.manifests import Manifests
from lepton_storage.members import Members
from lepton_storage.outliving import JobSweeper
from lepton_storage.placement import StorageNode
from lepton_storage.quotas import Quotas
from lepton_storage.records import Records
from lepton_storage.recovery import Recovery
from lepton_storage.sealing import Plain
from lepton_storage.store import ObjectStore

__all__ = [
    "GARBAGE_AGE_S",
    "GRACE_S",
    "MAX_OBJECT_BYTES",
    "TENANT",
    "UNNAMED_AGE_S",
    "Nodes",
    "announced",
    "disk_on",
    "node_record",
    "nodes_of",
]

TENANT = "team"
MAX_OBJECT_BYTES = 16 * 1024 * 1024
GRACE_S = 30.0
GARBAGE_AGE_S = 3600.0
UNNAMED_AGE_S = 24 * 3600.0


class SkewedClock:
    """A clock that runs well but was set wrong."""

    def __init__(self, right: ManualClock, skew_s: float) -> None:
        self._right = right
        self._skew_s = skew_s

    def now(self) -> float:
        return self._right.now() + self._skew_s

    def monotonic(self) -> float:
        return self._right.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._right.sleep(seconds)


class DirectPeers:
    """Reaches the chunks of the other nodes; those that are down do not answer."""

    def __init__(self, chunks: dict[str, Chunks]) -> None:
        self._chunks = chunks
        self.down: dict[str, LeptonError] = {}

    async def put(
        self, node: StorageNode, chunk: Chunk, data: bytes | memoryview, tenant: str
    ) -> None:
        await self._reach(node).write(chunk.hash, data, tenant)

    async def get(self, node: StorageNode, chunk: Chunk) -> memoryview:
        return await self._reach(node).read(chunk.hash)

    async def has(self, node: StorageNode, chunk_hashes: Sequence[bytes]) -> set[bytes]:
        return await self._reach(node).good(chunk_hashes)

    async def listed(self, node: StorageNode) -> AsyncIterator[ListChunksResponse]:
        async for batch in listed(self._reach(node)):
            yield batch

    def _reach(self, node: StorageNode) -> Chunks:
        if node.id in self.down:
            raise self.down[node.id]
        return self._chunks[node.id]


@dataclass
class Nodes:
    """Storage nodes that share a state. What a node does begins at `stores` and `rounds`."""

    folder: Path
    state: MemoryState
    clock: ManualClock
    members: Members
    quotas: Quotas
    peers: DirectPeers
    chunks: dict[str, Chunks]
    records: dict[str, Records] = field(default_factory=dict[str, Records])
    stores: dict[str, ObjectStore] = field(default_factory=dict[str, ObjectStore])
    rounds: dict[str, Maintenance] = field(default_factory=dict[str, Maintenance])

    async def put(self, content: bytes, replication: int = 0, by: str = "a") -> Object:
        """Store `content` as a client does, by one node."""
        store, request = self.stores[by], announced(content, replication)
        if not request.content:
            for start, stop in spans(len(content)):
                data = content[start:stop]
                await store.keep(digest(data), data, TENANT, replication)
        answer = await store.commit(request, TENANT)
        assert not answer.missing
        return answer.object

    async def read(self, wanted: str, by: str = "a") -> bytes:
        """All of an object, read by one node."""
        size = (await self.stores[by].stat(wanted)).size_bytes
        return await self.stores[by].read(wanted, 0, size)

    async def lose(self, name: str) -> None:
        """A node is gone, and all know."""
        self.peers.down[name] = UnavailableError("down")
        await self.state.commit([], [Remove(keys.node(name))])
        await self.clock.advance(0)

    async def bring_back(self, name: str) -> None:
        """It is there again, with its disk."""
        del self.peers.down[name]
        await self.state.commit([], [node_record(name)])
        await self.clock.advance(0)

    async def heal(self) -> None:
        """A round of every node that lives."""
        for name, maintenance in self.rounds.items():
            if name not in self.peers.down:
                await maintenance.round()

    def files(self, name: str) -> list[Path]:
        """The chunks' files of a node."""
        return sorted((self.folder / name / "chunks").glob("*/*"))


@asynccontextmanager
async def nodes_of(
    folder: Path,
    names: str = "abc",
    skew_s: Mapping[str, float] | None = None,
    packed_bytes: int = 0,
) -> AsyncGenerator[Nodes]:
    """Nodes with one-letter names, whose disks lie below `folder`.

    Args:
        folder: An empty one.
        names: A letter each.
        skew_s: By how much clocks of nodes are wrong.
        packed_bytes: Chunks up to this long share files.
    """
    state, clock = MemoryState(), ManualClock()
    for name in names:
        await state.commit([], [node_record(name)])
    members, quotas = Members(state, clock, 0.0), Quotas(state)
    clocks = {name: SkewedClock(clock, (skew_s or {}).get(name, 0.0)) for name in names}
    chunks = {
        name: Chunks(disk_on(folder / name, packed_bytes, clocks[name]), Plain()) for name in names
    }
    nodes = Nodes(folder, state, clock, members, quotas, DirectPeers(chunks), chunks)
    for name in names:
        _add_node(nodes, name, clocks[name])
    following = [asyncio.create_task(follow()) for follow in (members.follow, quotas.follow)]
    try:
        await members.known()
        yield nodes
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


def _add_node(nodes: Nodes, name: str, clock: SkewedClock) -> None:
    manifests = Manifests(nodes.state)
    copies = Copies(name, nodes.chunks[name], nodes.members, nodes.peers)
    folder = nodes.folder / name
    records = Records(folder / "records", name, nodes.state, clock, GARBAGE_AGE_S)
    nodes.records[name] = records
    nodes.stores[name] = ObjectStore(
        copies=copies,
        manifests=manifests,
        addresses=lambda: {name: f"{name}-data" for name in nodes.chunks},
        quotas=nodes.quotas,
        clock=clock,
        max_object_bytes=MAX_OBJECT_BYTES,
    )
    nodes.rounds[name] = Maintenance(
        recovery=Recovery(nodes.state, manifests, records, folder / "memory"),
        manifests=manifests,
        chores=_chores(nodes, name, copies, manifests, clock),
        clock=clock,
        interval_s=1.0,
    )


def _chores(
    nodes: Nodes, name: str, copies: Copies, manifests: Manifests, clock: SkewedClock
) -> list[Chore]:
    chunks, members = nodes.chunks[name], nodes.members
    healer = Healer(
        node_id=name,
        chunks=chunks,
        copies=copies,
        manifests=manifests,
        members=members,
        clock=clock,
        grace_s=GRACE_S,
    )
    return [
        nodes.records[name],
        nodes.quotas,
        JobSweeper(nodes.state, manifests),
        Forgetter(nodes.state, manifests, clock, UNNAMED_AGE_S),
        Collector(name, chunks, clock, GARBAGE_AGE_S),
        healer,
        Balancer(name, copies, manifests, members),
    ]


def disk_on(folder: Path, packed_bytes: int = 0, clock: Clock | None = None) -> Disk:
    """A disk below a folder, each of whose chunks has a file of its own if nothing else is said."""
    clock = clock or SystemClock()
    return Disk(folder, reserve_bytes=0, packed_bytes=packed_bytes, clock=clock)


def announced(content: bytes, replication: int = 0) -> CommitObjectRequest:
    """What a client asks for once it has cut and hashed its content."""
    if len(content) <= CHUNK_BYTES:
        return CommitObjectRequest(content=content, replication=replication)
    chunks = [
        Chunk(hash=digest(content[start:stop]), size_bytes=stop - start)
        for start, stop in spans(len(content))
    ]
    return CommitObjectRequest(
        chunks=chunks, expected_id=object_id(chunks), replication=replication
    )


def node_record(name: str) -> Write:
    """A living node."""
    node = Node(
        id=name,
        role=NODE_ROLE_STORAGE,
        address=name,
        data_address=f"{name}-data",
        disk_free_bytes=100,
    )
    return Write(keys.node(name), node.SerializeToString())
