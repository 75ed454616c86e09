"""The trainer that is kept ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from lepton_worker import trainers
from lepton_worker.trainers import Trainers


class Child:
    """A trainer that says what a test has it say."""

    def __init__(self) -> None:
        self.is_alive = True
        self.words: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        while True:
            yield await self.words.get()

    async def kill(self) -> None:
        self.is_alive = False


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    children: list[Child] = []

    async def start() -> Child:
        children.append(Child())
        return children[-1]

    monkeypatch.setattr(trainers, "_start", start)
    return children


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_trainer_counts_once_it_is_warm_and_another_comes_when_nothing_trains(
    started: list[Child],
) -> None:
    async def scenario() -> None:
        pool = Trainers()
        keeping = asyncio.create_task(pool.keep_spare())
        await settle()
        assert (len(started), pool.spare) == (1, 0)
        started[0].words.put_nowait({"event": "warm"})
        await settle()
        assert pool.spare == 1
        async with pool.one() as child:
            assert child is started[0]
            assert pool.spare == 0
            started[0].words.put_nowait({"event": "ready"})
            assert (await anext(child.events()))["event"] == "ready"
            await settle()
            assert len(started) == 1
        await settle()
        assert not started[0].is_alive
        assert len(started) == 2
        keeping.cancel()
        await asyncio.wait([keeping])
        assert not started[1].is_alive

    asyncio.run(scenario())


def test_a_rank_that_cannot_wait_takes_the_one_that_warms_up(started: list[Child]) -> None:
    async def scenario() -> None:
        pool = Trainers()
        keeping = asyncio.create_task(pool.keep_spare())
        await settle()
        async with pool.one() as child:
            assert child is started[0]
            started[0].words.put_nowait({"event": "warm"})
            assert (await anext(child.events()))["event"] == "warm"
        keeping.cancel()
        await asyncio.wait([keeping])

    asyncio.run(scenario())
