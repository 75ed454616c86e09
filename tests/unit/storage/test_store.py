"""Objects over three nodes in one process: real files, in-memory state, no network."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lepton_ai.chunking import CHUNK_BYTES, digest, object_id, spans
from lepton_ai.errors import (
    DataCorruptError,
    InvalidArgumentError,
    LeptonError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from lepton_ai.proto.v1.node_pb2 import NODE_ROLE_STORAGE, Node
from lepton_ai.proto.v1.storage_pb2 import Chunk, CommitObjectRequest, Object
from lepton_runtime import keys
from lepton_runtime.clock import ManualClock
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Remove, Write
from lepton_storage.copies import Copies
from lepton_storage.disk import Disk
from lepton_storage.healing import Healer
from lepton_storage.manifests import Manifests
from lepton_storage.peers import Members
from lepton_storage.placement import StorageNode, ranked
from lepton_storage.store import ObjectStore

CONTENT = bytes(range(256)) * (CHUNK_BYTES // 256) + b"and a second chunk"
LIMIT = 16 * 1024 * 1024
GRACE_S = 30.0


class DirectPeers:
    """Reaches the disks of the other nodes; those that are down do not answer."""

    def __init__(self, disks: dict[str, Disk]) -> None:
        self._disks = disks
        self.down: dict[str, LeptonError] = {}

    async def put(self, node: StorageNode, chunk: Chunk, data: bytes) -> None:
        await self._reach(node).write(chunk.hash, data)

    async def get(self, node: StorageNode, chunk: Chunk) -> bytes:
        return await self._reach(node).read(chunk.hash)

    async def has(self, node: StorageNode, chunk_hashes: Sequence[bytes]) -> set[bytes]:
        return await self._reach(node).good(chunk_hashes)

    def _reach(self, node: StorageNode) -> Disk:
        if node.id in self.down:
            raise self.down[node.id]
        return self._disks[node.id]


@dataclass
class Nodes:
    """Nodes a, b and c; `store` and `healer` are those of a."""

    folder: Path
    state: MemoryState
    members: Members
    disks: dict[str, Disk]
    peers: DirectPeers
    store: ObjectStore
    healer: Healer
    clock: ManualClock
    following: asyncio.Task[None]

    async def put(self, content: bytes, replication: int = 0) -> Object:
        request = announced(content, replication)
        if not request.content:
            for start, stop in spans(len(content)):
                data = content[start:stop]
                await self.store.keep(digest(data), data, replication)
        answer = await self.store.commit(request, "team")
        assert not answer.missing
        return answer.object

    async def read(self, wanted: str) -> bytes:
        size = (await self.store.stat(wanted)).size_bytes
        return await self.store.read(wanted, 0, size)

    async def lose(self, name: str) -> None:
        self.peers.down[name] = UnavailableError("down")
        await self.state.commit([], [Remove(keys.node(name))])
        await self.clock.advance(0)

    def files(self, name: str) -> list[Path]:
        return sorted((self.folder / name / "chunks").glob("*/*"))


GARBAGE_AGE_S = 3600.0


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
    node = Node(
        id=name,
        role=NODE_ROLE_STORAGE,
        address=name,
        data_address=f"{name}-data",
        disk_free_bytes=100,
    )
    return Write(keys.node(name), node.SerializeToString())


async def three_nodes(folder: Path) -> Nodes:
    state, clock = MemoryState(), ManualClock()
    for name in "abc":
        await state.commit([], [node_record(name)])
    members = Members(state)
    following = asyncio.create_task(members.follow())
    await members.known()
    disks = {name: Disk(folder / name, 0) for name in "abc"}
    peers = DirectPeers(disks)
    copies, manifests = Copies("a", disks["a"], members, peers), Manifests(state)
    healer = Healer(
        node_id="a",
        disk=disks["a"],
        copies=copies,
        manifests=manifests,
        members=members,
        clock=clock,
        grace_s=GRACE_S,
        garbage_age_s=GARBAGE_AGE_S,
        interval_s=1.0,
    )
    store = ObjectStore(copies, manifests, members, clock, LIMIT)
    return Nodes(folder, state, members, disks, peers, store, healer, clock, following)


def test_an_object_has_its_copies_when_it_is_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        stored = await nodes.put(CONTENT)
        assert (stored.size_bytes, stored.tenant, stored.replication) == (len(CONTENT), "team", 0)
        assert stored.id == announced(CONTENT).expected_id
        for chunk in stored.chunks:
            assert len(chunk.nodes) == 3
            for name in chunk.nodes:
                assert len(await nodes.disks[name].read(chunk.hash)) == chunk.size_bytes
        assert await nodes.read(stored.id) == CONTENT
        nodes.following.cancel()

    asyncio.run(scenario())


def test_a_node_that_just_joined_counts(tmp_path: Path) -> None:
    """What is followed may lag; fewer copies than wanted are not made because of that."""

    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        for name in "bc":
            await nodes.lose(name)
        assert list(nodes.members.nodes) == ["a"]
        nodes.following.cancel()
        nodes.peers.down.clear()
        for name in "bc":
            await nodes.state.commit([], [node_record(name)])
        stored = await nodes.put(CONTENT, replication=2)
        assert [len(chunk.nodes) for chunk in stored.chunks] == [2, 2]

    asyncio.run(scenario())


def test_a_node_that_fails_is_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        nodes.peers.down["b"] = UnavailableError("down")
        stored = await nodes.put(CONTENT, replication=2)
        assert [set(chunk.nodes) for chunk in stored.chunks] == [{"a", "c"}] * 2
        nodes.following.cancel()

    asyncio.run(scenario())


def test_chunks_of_no_object_go_when_they_are_old(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        kept, forgotten = await nodes.put(CONTENT), await nodes.put(b"forgotten")
        await nodes.store.delete(forgotten.id)
        stay, goes = len(kept.chunks), nodes.files("a")
        assert len(goes) == stay + 1
        now = nodes.clock.now()
        for path in goes:
            os.utime(path, (now, now))
        await nodes.clock.advance(GARBAGE_AGE_S)
        await nodes.healer.heal()
        assert nodes.files("a") == goes
        await nodes.clock.advance(1)
        await nodes.healer.heal()
        assert len(nodes.files("a")) == stay
        assert await nodes.read(kept.id) == CONTENT
        with pytest.raises(NotFoundError):
            await nodes.read(forgotten.id)
        nodes.following.cancel()

    asyncio.run(scenario())


def test_a_chunk_that_is_stored_again_is_young(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk, content = Disk(tmp_path, 0), b"again"
        await disk.write(digest(content), content)
        (path,) = (tmp_path / "chunks").glob("*/*")
        os.utime(path, (0, 0))
        await disk.write(digest(content), content)
        assert await disk.collect(set(), written_before=1) == 0
        os.utime(path, (0, 0))
        assert await disk.collect({digest(content)}, written_before=1) == 0
        assert await disk.collect(set(), written_before=1) == 1
        assert not path.exists()

    asyncio.run(scenario())


@pytest.mark.parametrize("failure", [UnavailableError, ResourceExhaustedError])
def test_too_few_copies_are_no_upload(tmp_path: Path, failure: type[LeptonError]) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        nodes.peers.down = {"b": failure("no"), "c": failure("no")}
        with pytest.raises(failure, match="only 1 of 2 copies"):
            await nodes.put(CONTENT, replication=2)
        assert not (await nodes.state.list(keys.OBJECTS)).records
        nodes.following.cancel()

    asyncio.run(scenario())


HASH = digest(b"content")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (CommitObjectRequest(content=b"x", expected_id="b3-" + "0" * 64), InvalidArgumentError),
        (CommitObjectRequest(content=b"x", expected_id="../x"), InvalidArgumentError),
        (CommitObjectRequest(content=b"x", replication=-1), InvalidArgumentError),
        (CommitObjectRequest(content=b"x", replication=6), InvalidArgumentError),
        (CommitObjectRequest(content=b"x", replication=4), UnavailableError),
        (CommitObjectRequest(content=bytes(CHUNK_BYTES + 1)), InvalidArgumentError),
        (CommitObjectRequest(chunks=[Chunk(hash=b"short", size_bytes=1)]), InvalidArgumentError),
        (CommitObjectRequest(chunks=[Chunk(hash=HASH, size_bytes=0)]), InvalidArgumentError),
        (
            CommitObjectRequest(chunks=[Chunk(hash=HASH, size_bytes=7)] * 2),
            InvalidArgumentError,
        ),
        (
            CommitObjectRequest(chunks=[Chunk(hash=HASH, size_bytes=CHUNK_BYTES)] * 5),
            ResourceExhaustedError,
        ),
    ],
)
def test_wrong_uploads_stay_invisible(
    tmp_path: Path, request_: CommitObjectRequest, error: type[LeptonError]
) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        with pytest.raises(error):
            await nodes.store.commit(request_, "team")
        assert not (await nodes.state.list(keys.OBJECTS)).records
        nodes.following.cancel()

    asyncio.run(scenario())


def test_what_is_missing_is_named_with_where_it_should_go(tmp_path: Path) -> None:
    """An upload that broke off goes on where it was."""

    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        request = announced(CONTENT)
        first = CONTENT[:CHUNK_BYTES]
        await nodes.store.keep(digest(first), first)
        answer = await nodes.store.commit(request, "team")
        assert not answer.HasField("object")
        [missing] = answer.missing
        rest = CONTENT[CHUNK_BYTES:]
        assert missing.hash == digest(rest)
        assert sorted(missing.addresses) == ["a-data", "b-data", "c-data"]
        await nodes.store.keep(digest(rest), rest)
        assert (await nodes.store.commit(request, "team")).object.size_bytes == len(CONTENT)
        nodes.following.cancel()

    asyncio.run(scenario())


def test_a_chunk_with_too_few_copies_gets_them_before_the_object_is_acknowledged(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        data = bytes(CHUNK_BYTES)
        await nodes.disks["c"].write(digest(data), data)
        chunks = [Chunk(hash=digest(data), size_bytes=len(data))] * 2
        stored = (await nodes.store.commit(CommitObjectRequest(chunks=chunks), "team")).object
        assert [set(chunk.nodes) for chunk in stored.chunks] == [{"a", "b", "c"}] * 2
        for disk in nodes.disks.values():
            assert await disk.read(digest(data)) == data
        nodes.following.cancel()

    asyncio.run(scenario())


def test_wrong_bytes_are_no_copy(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        with pytest.raises(InvalidArgumentError, match="do not have"):
            await nodes.store.keep(digest(b"right"), b"wrong")
        assert not any(nodes.files(name) for name in "abc")
        nodes.following.cancel()

    asyncio.run(scenario())


def test_the_reader_of_a_bad_copy_gets_right_bytes_and_it_is_repaired(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        stored = await nodes.put(CONTENT)
        path = nodes.files("a")[0]
        good = path.read_bytes()
        path.write_bytes(good[:-1])
        assert await nodes.read(stored.id) == CONTENT
        assert path.read_bytes() == good
        nodes.following.cancel()

    asyncio.run(scenario())


def test_without_any_good_copy_no_wrong_byte_is_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        stored = await nodes.put(b"content")
        for name in "abc":
            for path in nodes.files(name):
                path.write_bytes(b"kontent")
        with pytest.raises(DataCorruptError, match="no living storage node"):
            await nodes.read(stored.id)
        with pytest.raises(NotFoundError):
            await nodes.read("b3-" + "0" * 64)
        nodes.following.cancel()

    asyncio.run(scenario())


def test_a_lost_node_is_made_up_for_after_the_grace_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        content = next(
            content
            for content in (bytes([number]) for number in range(100))
            if "a"
            in [node.id for node in ranked(digest(content), nodes.members.nodes.values())][:2]
        )
        stored = await nodes.put(content, replication=2)
        [other] = set(stored.chunks[0].nodes) - {"a"}
        await nodes.lose(other)
        await nodes.healer.heal()
        await nodes.clock.advance(GRACE_S - 1)
        await nodes.healer.heal()
        assert set((await nodes.store.stat(stored.id)).chunks[0].nodes) == {"a", other}
        await nodes.clock.advance(1)
        await nodes.healer.heal()
        [third] = {"b", "c"} - {other}
        assert set((await nodes.store.stat(stored.id)).chunks[0].nodes) == {"a", third}
        assert await nodes.disks[third].read(stored.chunks[0].hash) == content
        nodes.following.cancel()

    asyncio.run(scenario())


def test_a_copy_that_vanished_is_fetched_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        stored = await nodes.put(b"content")
        nodes.files("a")[0].unlink()
        await nodes.healer.heal()
        assert await nodes.disks["a"].read(stored.chunks[0].hash) == b"content"
        nodes.following.cancel()

    asyncio.run(scenario())


def test_the_same_content_twice_is_one_object_with_the_higher_wish(tmp_path: Path) -> None:
    async def scenario() -> None:
        nodes = await three_nodes(tmp_path)
        first = await nodes.put(b"content", replication=2)
        second = await nodes.put(b"content", replication=3)
        assert first.id == second.id
        assert second.replication == 3
        assert set(second.chunks[0].nodes) == {"a", "b", "c"}
        assert len((await nodes.state.list(keys.OBJECTS)).records) == 1
        nodes.following.cancel()

    asyncio.run(scenario())
