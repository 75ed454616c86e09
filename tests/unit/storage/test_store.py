"""Objects over three nodes in one process: real files, in-memory state, no network."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from storage_nodes import GARBAGE_AGE_S, GRACE_S, announced, disk_on, node_record, nodes_of

from lepton_ai.chunking import CHUNK_BYTES, digest
from lepton_ai.errors import (
    DataCorruptError,
    InvalidArgumentError,
    LeptonError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from lepton_ai.proto.v1.storage_pb2 import Chunk, CommitObjectRequest
from lepton_runtime import keys
from lepton_storage.chunks import Chunks
from lepton_storage.placement import ranked
from lepton_storage.sealing import Plain

CONTENT = bytes(range(256)) * (CHUNK_BYTES // 256) + b"and a second chunk"


def test_an_object_has_its_copies_when_it_is_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            stored = await nodes.put(CONTENT)
            assert (stored.size_bytes, stored.tenant, stored.replication) == (
                len(CONTENT),
                "team",
                0,
            )
            assert stored.id == announced(CONTENT).expected_id
            for chunk in stored.chunks:
                assert len(chunk.nodes) == 3
                for name in chunk.nodes:
                    assert len(await nodes.chunks[name].read(chunk.hash)) == chunk.size_bytes
            assert await nodes.read(stored.id) == CONTENT

    asyncio.run(scenario())


def test_a_node_that_just_joined_counts(tmp_path: Path) -> None:
    """What is followed may lag; fewer copies than wanted are not made because of that."""

    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            for name in "bc":
                await nodes.lose(name)
            assert list(nodes.members.nodes) == ["a"]
        nodes.peers.down.clear()
        for name in "bc":
            await nodes.state.commit([], [node_record(name)])
        stored = await nodes.put(CONTENT, replication=2)
        assert [len(chunk.nodes) for chunk in stored.chunks] == [2, 2]

    asyncio.run(scenario())


def test_a_node_that_fails_is_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            nodes.peers.down["b"] = UnavailableError("down")
            stored = await nodes.put(CONTENT, replication=2)
            assert [set(chunk.nodes) for chunk in stored.chunks] == [{"a", "c"}] * 2

    asyncio.run(scenario())


def test_chunks_of_no_object_go_when_they_are_old(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            kept, forgotten = await nodes.put(CONTENT), await nodes.put(b"forgotten")
            await nodes.stores["a"].delete(forgotten.id)
            stay, goes = len(kept.chunks), nodes.files("a")
            assert len(goes) == stay + 1
            now = nodes.clock.now()
            for path in goes:
                os.utime(path, (now, now))
            await nodes.clock.advance(GARBAGE_AGE_S)
            await nodes.rounds["a"].round()
            assert nodes.files("a") == goes
            await nodes.clock.advance(1)
            await nodes.rounds["a"].round()
            assert len(nodes.files("a")) == stay
            assert await nodes.read(kept.id) == CONTENT
            with pytest.raises(NotFoundError):
                await nodes.read(forgotten.id)

    asyncio.run(scenario())


def test_a_chunk_that_is_stored_again_is_young(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk, content = Chunks(disk_on(tmp_path), Plain()), b"again"
        await disk.write(digest(content), content, "team")
        (path,) = (tmp_path / "chunks").glob("*/*")
        os.utime(path, (0, 0))
        await disk.write(digest(content), content, "team")
        assert await disk.collect(set(), written_before=1) == 0
        os.utime(path, (0, 0))
        assert await disk.collect({digest(content)}, written_before=1) == 0
        assert await disk.collect(set(), written_before=1) == 1
        assert not path.exists()

    asyncio.run(scenario())


@pytest.mark.parametrize("failure", [UnavailableError, ResourceExhaustedError])
def test_too_few_copies_are_no_upload(tmp_path: Path, failure: type[LeptonError]) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            nodes.peers.down = {"b": failure("no"), "c": failure("no")}
            with pytest.raises(failure, match="only 1 of 2 copies"):
                await nodes.put(CONTENT, replication=2)
            assert not (await nodes.state.list(keys.OBJECTS)).records

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
        async with nodes_of(tmp_path) as nodes:
            with pytest.raises(error):
                await nodes.stores["a"].commit(request_, "team")
            assert not (await nodes.state.list(keys.OBJECTS)).records

    asyncio.run(scenario())


def test_what_is_missing_is_named_with_where_it_should_go(tmp_path: Path) -> None:
    """An upload that broke off goes on where it was."""

    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            request = announced(CONTENT)
            first = CONTENT[:CHUNK_BYTES]
            await nodes.stores["a"].keep(digest(first), first, "team")
            answer = await nodes.stores["a"].commit(request, "team")
            assert not answer.HasField("object")
            [missing] = answer.missing
            rest = CONTENT[CHUNK_BYTES:]
            assert missing.hash == digest(rest)
            assert sorted(missing.addresses) == ["a-data", "b-data", "c-data"]
            await nodes.stores["a"].keep(digest(rest), rest, "team")
            assert (await nodes.stores["a"].commit(request, "team")).object.size_bytes == len(
                CONTENT
            )

    asyncio.run(scenario())


def test_a_chunk_with_too_few_copies_gets_them_before_the_object_is_acknowledged(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            data = bytes(CHUNK_BYTES)
            await nodes.chunks["c"].write(digest(data), data, "team")
            chunks = [Chunk(hash=digest(data), size_bytes=len(data))] * 2
            stored = (
                await nodes.stores["a"].commit(CommitObjectRequest(chunks=chunks), "team")
            ).object
            assert [set(chunk.nodes) for chunk in stored.chunks] == [{"a", "b", "c"}] * 2
            for disk in nodes.chunks.values():
                assert await disk.read(digest(data)) == data

    asyncio.run(scenario())


def test_wrong_bytes_are_no_copy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            with pytest.raises(InvalidArgumentError, match="do not have"):
                await nodes.stores["a"].keep(digest(b"right"), b"wrong", "team")
            assert not any(nodes.files(name) for name in "abc")

    asyncio.run(scenario())


def test_the_reader_of_a_bad_copy_gets_right_bytes_and_it_is_repaired(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            stored = await nodes.put(CONTENT)
            path = nodes.files("a")[0]
            good = path.read_bytes()
            path.write_bytes(good[:-1])
            assert await nodes.read(stored.id) == CONTENT
            await nodes.rounds["a"].round()
            assert path.read_bytes() == good

    asyncio.run(scenario())


def test_without_any_good_copy_no_wrong_byte_is_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            stored = await nodes.put(b"content")
            for name in "abc":
                for path in nodes.files(name):
                    path.write_bytes(b"kontent")
            with pytest.raises(DataCorruptError, match="no living storage node"):
                await nodes.read(stored.id)
            with pytest.raises(NotFoundError):
                await nodes.read("b3-" + "0" * 64)

    asyncio.run(scenario())


def test_a_lost_node_is_made_up_for_after_the_grace_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            content = next(
                content
                for content in (bytes([number]) for number in range(100))
                if "a"
                in [node.id for node in ranked(digest(content), nodes.members.nodes.values())][:2]
            )
            stored = await nodes.put(content, replication=2)
            [other] = set(stored.chunks[0].nodes) - {"a"}
            await nodes.lose(other)
            await nodes.rounds["a"].round()
            await nodes.clock.advance(GRACE_S - 1)
            await nodes.rounds["a"].round()
            assert set((await nodes.stores["a"].stat(stored.id)).chunks[0].nodes) == {"a", other}
            await nodes.clock.advance(1)
            await nodes.rounds["a"].round()
            [third] = {"b", "c"} - {other}
            assert set((await nodes.stores["a"].stat(stored.id)).chunks[0].nodes) == {"a", third}
            assert await nodes.chunks[third].read(stored.chunks[0].hash) == content

    asyncio.run(scenario())


def test_a_copy_that_vanished_is_fetched_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            stored = await nodes.put(b"content")
            nodes.files("a")[0].unlink()
            await nodes.rounds["a"].round()
            assert await nodes.chunks["a"].read(stored.chunks[0].hash) == b"content"

    asyncio.run(scenario())


def test_the_same_content_twice_is_one_object_with_the_higher_wish(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            first = await nodes.put(b"content", replication=2)
            second = await nodes.put(b"content", replication=3)
            assert first.id == second.id
            assert second.replication == 3
            assert set(second.chunks[0].nodes) == {"a", "b", "c"}
            assert len((await nodes.state.list(keys.OBJECTS)).records) == 1

    asyncio.run(scenario())


def test_clocks_that_are_five_minutes_off_lose_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path, skew_s={"b": 300.0, "c": -300.0}) as nodes:
            ids = [(await nodes.put(bytes([n]), by="abc"[n % 3])).id for n in range(6)]
            # A chunk whose object is still being stored.
            data = b"on its way"
            await nodes.stores["c"].keep(digest(data), data, "team")
            for name, skew in (("a", 0), ("b", 300), ("c", -300)):
                for path in nodes.files(name):
                    made_at = nodes.clock.now() + skew
                    os.utime(path, (made_at, made_at))
            await nodes.lose("c")
            await nodes.clock.advance(GRACE_S - 1)
            await nodes.heal()
            await nodes.bring_back("c")
            await nodes.clock.advance(GARBAGE_AGE_S - GRACE_S)
            await nodes.heal()
            for number, wanted in enumerate(ids):
                assert await nodes.read(wanted, by="b") == bytes([number])
                assert len((await nodes.stores["a"].stat(wanted)).chunks[0].nodes) == 3
            assert (await nodes.put(data)).size_bytes == len(data)

    asyncio.run(scenario())
