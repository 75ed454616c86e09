from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import pytest

from lepton_ai.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError
from lepton_runtime.memory_queues import MemoryQueues
from lepton_runtime.nats import NatsBus
from lepton_runtime.queues import Bounds, Queues

BOUNDS = Bounds(entries=4, size_bytes=8 * 1024 * 1024, age_s=3600)
Open = Callable[[], AbstractAsyncContextManager[Queues]]


@pytest.fixture(params=["memory", "nats"])
def open_queues(request: pytest.FixtureRequest) -> Open:
    address = request.getfixturevalue("nats").address if request.param == "nats" else None

    @asynccontextmanager
    async def opened() -> AsyncIterator[Queues]:
        if address is None:
            yield MemoryQueues()
            return
        bus = await NatsBus.connect([f"nats://{address}"])
        try:
            yield bus.queues
        finally:
            await bus.close()

    return opened


@pytest.fixture
def name() -> str:
    """A queue or ledger of this test alone."""
    return uuid.uuid4().hex


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within_reason() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(within_reason())


def test_work_is_taken_once_and_the_same_key_is_the_same_work(open_queues: Open, name):
    async def scenario() -> None:
        async with open_queues() as queues:
            queue = await queues.work_queue(name, BOUNDS)
            for key, payload in (("a", b"1"), ("a", b"2"), ("b", b"3")):
                await queue.put(key, payload)
            async with aclosing(queue.taken()) as first, aclosing(queue.taken()) as second:
                one, two = await anext(first), await anext(second)
                assert {one.payload, two.payload} == {b"1", b"3"}
                assert one.tries == two.tries == 1
                await one.working()
                await one.done()
                await two.done()
            await queue.put("a", b"again")
            await queue.put("c", b"last")
            async with aclosing(queue.taken()) as taken:
                assert (await anext(taken)).payload == b"last"

    run(scenario())


def test_work_given_back_comes_again_and_says_so(open_queues: Open, name):
    async def scenario() -> None:
        async with open_queues() as queues:
            queue = await queues.work_queue(name, BOUNDS)
            await queue.put("a", b"1")
            async with aclosing(queue.taken()) as taken:
                await (await anext(taken)).again(0.05)
                delivery = await anext(taken)
                assert (delivery.payload, delivery.tries) == (b"1", 2)

    run(scenario())


def test_what_is_full_or_too_large_is_refused(open_queues: Open, name):
    async def scenario() -> None:
        async with open_queues() as queues:
            queue = await queues.work_queue(name, BOUNDS)
            for number in range(4):
                await queue.put(str(number), b"x")
            with pytest.raises(ResourceExhaustedError, match="full") as refused:
                await queue.put("more", b"x")
            assert refused.value.retry_after_s
            with pytest.raises(InvalidArgumentError, match="too many"):
                await queue.put("large", bytes(queue.most_bytes + 1))

    run(scenario())


def test_the_first_fact_stays(open_queues: Open, name):
    async def scenario() -> None:
        async with open_queues() as queues:
            ledger = await queues.ledger(name, BOUNDS)
            assert await ledger.get("x.answer") is None
            assert await ledger.wait("x.answer", 0.05) is None
            waiting = [asyncio.create_task(ledger.wait("x.answer", 20)) for _ in range(2)]
            await asyncio.sleep(0.05)
            made = await asyncio.gather(
                *(ledger.create("x.answer", value) for value in (b"1", b"2"))
            )
            assert sorted(made) == [False, True]
            first = b"1" if made[0] else b"2"
            assert await ledger.get("x.answer") == first
            assert await asyncio.gather(*waiting) == [first, first]
            assert await ledger.wait("x.answer", 20) == first

    run(scenario())


def test_a_restart_of_nats_loses_no_work(own_nats, name):
    async def scenario() -> None:
        bus = await NatsBus.connect([f"nats://{own_nats.address}"])
        try:
            queue = await bus.queues.work_queue(name, BOUNDS)
            ledger = await bus.queues.ledger(name, BOUNDS)
            async with aclosing(queue.taken()) as taken:
                await queue.put("a", b"1")
                delivery = await anext(taken)
                await queue.put("b", b"2")
                assert await ledger.create("k", b"fact")
                await asyncio.to_thread(own_nats.kill)
                with pytest.raises(UnavailableError):
                    await ledger.get("k")
                await asyncio.to_thread(own_nats.start_again)
                after = await anext(taken)
                assert after.payload in {b"1", b"2"}
                await delivery.done()
                await after.done()
            while await ledger.wait("k", 1) is None:
                pass
        finally:
            await bus.close()

    run(scenario())
