"""The node's cache of objects."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lepton_ai.chunking import CHUNK_BYTES, digest, object_id, spans
from lepton_ai.errors import UnavailableError
from lepton_ai.proto.v1.storage_pb2 import Chunk
from lepton_runtime.clock import ManualClock
from lepton_worker.cache import ObjectCache

BIG = bytes(range(256)) * (CHUNK_BYTES // 128) + b"end"


def named(content: bytes) -> str:
    return object_id(
        Chunk(hash=digest(content[start:stop]), size_bytes=stop - start)
        for start, stop in spans(len(content))
    )


class Storage:
    """Counts how often each object is fetched."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.clock = ManualClock()
        self.folder = folder
        self.cache = ObjectCache(folder, max_bytes, self.clock)
        self.fetched: list[bytes] = []

    async def get(self, content: bytes) -> bytes:
        async def fetch(path: Path) -> None:
            self.fetched.append(content)
            await asyncio.to_thread(path.write_bytes, content)

        return (await self.cache.get(named(content), fetch)).read_bytes()

    def here(self) -> set[bytes]:
        return {path.read_bytes() for path in self.folder.iterdir()}


def test_each_object_is_fetched_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path, 10**9)
        for content in (b"", b"small", BIG):
            assert await asyncio.gather(*(storage.get(content) for _ in range(5))) == [content] * 5
        assert storage.fetched == [b"", b"small", BIG]

    asyncio.run(scenario())


def test_what_decayed_is_fetched_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path, 10**9)
        await storage.get(BIG)
        (tmp_path / named(BIG)).write_bytes(BIG[:-1])
        assert await storage.get(BIG) == BIG
        assert len(storage.fetched) == 2

    asyncio.run(scenario())


def test_the_least_used_go_first_and_what_is_used_now_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path, 10)
        one, two, three = b"1111", b"2222", b"3333"
        for content in (one, two):
            await storage.get(content)
            await storage.clock.advance(10)
        await storage.get(one)
        await storage.get(three)  # all were given out just now
        assert storage.here() == {one, two, three}
        await storage.clock.advance(3600)
        await storage.get(three)
        assert storage.here() == {one, three}

    asyncio.run(scenario())


def test_what_cannot_be_fetched_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def fail(path: Path) -> None:
            raise UnavailableError("down")

        storage = Storage(tmp_path, 10)
        with pytest.raises(UnavailableError):
            await storage.cache.get(named(b"x"), fail)
        assert storage.here() == set()
        assert await storage.get(b"x") == b"x"

    asyncio.run(scenario())
