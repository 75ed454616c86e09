"""What ranks print and how far they are, while the broker is there, slow, or away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from lepton_ai.proto.v1 import job_pb2, task_pb2
from lepton_worker.news import News

TIMEOUT_S = 10.0
RANK = task_pb2.TrainerTask(job_id="j", rank=2)


class Broker:
    """Takes a message each time it is let."""

    def __init__(self) -> None:
        self.there = True
        self.lines: list[str] = []
        self.turns = asyncio.Semaphore(0)

    async def publish(self, subject: str, payload: bytes) -> bool:
        await self.turns.acquire()
        if self.there:
            assert subject == "lepton.v1.jobs.j.logs"
            line = job_pb2.LogLine.FromString(payload)
            assert (line.node_id, line.rank) == ("w1", 2)
            self.lines.append(line.text)
        return self.there

    async def let(self, count: int) -> None:
        """Let so many messages come, and what follows from that."""
        for _ in range(count):
            self.turns.release()
        for _ in range(10 * count):
            await asyncio.sleep(0)


def scenario(check: Callable[[Broker, News], Awaitable[None]]) -> None:
    async def body() -> None:
        broker = Broker()
        news = News(cast("Any", broker), capacity=3)
        telling = asyncio.create_task(news.tell())
        async with asyncio.timeout(TIMEOUT_S):
            await check(broker, news)
        telling.cancel()
        await asyncio.wait([telling])

    asyncio.run(body())


async def print_all(news: News, texts: str) -> None:
    for text in texts:
        await news.printed("w1", RANK, text)


def test_whoever_prints_faster_than_the_broker_takes_it_waits_and_loses_nothing() -> None:
    async def check(broker: Broker, news: News) -> None:
        printing = asyncio.create_task(print_all(news, "abcdefgh"))
        await broker.let(2)
        assert (broker.lines, printing.done()) == (["a", "b"], False)
        await broker.let(6)
        assert printing.done()
        assert broker.lines == list("abcdefgh")

    scenario(check)


def test_nobody_waits_for_a_broker_that_is_away() -> None:
    async def check(broker: Broker, news: News) -> None:
        broker.there = False
        await print_all(news, "a")
        await broker.let(1)
        await asyncio.wait_for(print_all(news, "bcdefgh"), 1.0)
        broker.there = True
        await broker.let(4)
        assert broker.lines[-3:] == ["f", "g", "h"]  # the newest are kept

    scenario(check)
