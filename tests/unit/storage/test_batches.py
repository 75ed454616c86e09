"""Work that is done together, and manifests that are made so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lepton_ai.chunking import digest, object_id
from lepton_ai.proto.v1.storage_pb2 import Chunk, Object
from lepton_runtime import keys
from lepton_runtime.memory import MemoryState
from lepton_storage.batches import Batches
from lepton_storage.manifests import Manifests


def test_what_comes_meanwhile_is_done_together() -> None:
    batches: list[list[int]] = []
    held = asyncio.Event()

    async def work(items: Sequence[int]) -> list[int | Exception]:
        batches.append(list(items))
        await held.wait()
        return [ValueError(item) if item == 3 else -item for item in items]

    async def scenario() -> None:
        together = Batches(work, at_once=1, max_items=3, max_size=100)
        calls = [asyncio.create_task(together.do(1, 1))]
        while not batches:  # noqa: ASYNC110 - the other task runs
            await asyncio.sleep(0)
        calls += [asyncio.create_task(together.do(n, 90 if n == 5 else 1)) for n in range(2, 7)]
        await asyncio.sleep(0)
        calls[1].cancel()
        held.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert batches == [[1], [2, 3, 4], [5, 6]]
        assert isinstance(results.pop(1), asyncio.CancelledError)
        assert isinstance(results.pop(1), ValueError)
        assert results == [-1, -4, -5, -6]

    asyncio.run(scenario())


def test_one_that_is_larger_goes_alone_and_a_failure_is_told_to_all() -> None:
    async def work(items: Sequence[int]) -> list[int | Exception]:
        if len(items) > 1:
            raise OSError("together")
        return list(items)

    async def scenario() -> None:
        together = Batches(work, at_once=1, max_items=10, max_size=10)
        first, large, *rest = [
            asyncio.create_task(together.do(size, size)) for size in (5, 50, 1, 1)
        ]
        assert [await first, await large] == [5, 50]
        for call in rest:
            with pytest.raises(OSError, match="together"):
                await call

    asyncio.run(scenario())


def test_who_asks_as_soon_as_it_is_answered_is_served() -> None:
    async def work(items: Sequence[int]) -> list[int | Exception]:
        return list(items)

    async def scenario() -> None:
        together = Batches(work, at_once=1, max_items=10, max_size=10)
        async with asyncio.timeout(5):
            assert [await together.do(number, 1) for number in range(3)] == [0, 1, 2]

    asyncio.run(scenario())


def manifest(number: int, node: str) -> Object:
    chunk = Chunk(hash=digest(bytes([number])), size_bytes=1, nodes=[node])
    return Object(id=object_id([chunk]), size_bytes=1, chunks=[chunk])


def test_of_many_objects_at_once_those_that_are_there_are_merged() -> None:
    async def scenario() -> None:
        state = MemoryState()
        manifests = Manifests(state)
        await manifests.add(manifest(7, "a"))
        wanted = [manifest(number % 10, node) for number in range(10) for node in "bc"]
        added = await asyncio.gather(*(manifests.add(each) for each in wanted))
        assert [each.id for each in added] == [each.id for each in wanted]
        nodes = {each.id: set(each.chunks[0].nodes) for each in await manifests.list()}
        assert nodes.pop(manifest(7, "").id) == {"a", "b", "c"}
        assert list(nodes.values()) == [{"b", "c"}] * 9
        assert len((await state.list(keys.OBJECTS)).records) == 10

    asyncio.run(scenario())
