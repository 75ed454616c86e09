"""Shards are claimed, done and recorded once, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from lepton_ai.errors import UnavailableError
from lepton_ai.proto.v1 import node_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.cancellation import end
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Condition, Operation, Remove, Write
from lepton_worker import shards
from lepton_worker.shards import Entry, Shards, next_free

COUNT = 6


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_RETRY_S", 0.01)


class Flaky(MemoryState):
    """State that does what it is told, and whose answers can be lost."""

    lost_answers = 0

    async def commit(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> int | None:
        revision = await super().commit(conditions, operations)
        if self.lost_answers:
            self.lost_answers -= 1
            raise UnavailableError("the answer was lost")
        return revision


async def rank(state: MemoryState, number: int, attempt: int = 1) -> task_pb2.Task:
    """A rank that is placed on a node of its own."""
    name = f"w{number}"
    task = task_pb2.Task(id=f"j-r{number}", node_id=name, node_incarnation="1", attempt=attempt)
    task.score.job_id, task.score.rank = "j", number
    node = node_pb2.Node(id=name, incarnation="1")
    await state.commit([], [Write(keys.node(name), node.SerializeToString())])
    revision = await state.commit([], [Write(keys.task(name, task.id, attempt), b"")])
    assert revision is not None
    task.placed_revision = revision
    return task


@asynccontextmanager
async def seen_by(
    state: MemoryState, task: task_pb2.Task, start: int = 0
) -> AsyncGenerator[Shards]:
    mine = Shards(state, task, COUNT, start)
    following = asyncio.create_task(mine.follow())
    try:
        yield mine
    finally:
        await end(following)


async def do(mine: Shards, count: int) -> list[int | None]:
    """Do so many shards."""
    done: list[int | None] = []
    for _ in range(count):
        number = await mine.take()
        done.append(number)
        if number is not None:
            assert await mine.finish(number, f"by-{number}")
    return done


def test_what_is_free_is_looked_for_from_a_place_of_ones_own() -> None:
    taken = {number: Entry(task_pb2.Shard(), 1) for number in (3, 4, 0)}
    assert next_free(taken, COUNT, 3) == 5
    assert next_free(taken | {5: Entry(task_pb2.Shard(), 1)}, COUNT, 3) == 1
    assert next_free(dict.fromkeys(range(COUNT), taken[0]), COUNT, 0) is None


def test_two_ranks_do_every_shard_once() -> None:
    async def scenario() -> None:
        state = MemoryState()
        first, second = await rank(state, 0), await rank(state, 1)
        async with seen_by(state, first) as one, seen_by(state, second, 3) as other:
            shares = await asyncio.gather(do(one, 3), do(other, 3))
            assert sorted(number for share in shares for number in share if number is not None) == [
                *range(COUNT)
            ]
            assert await asyncio.gather(one.take(), other.take()) == [None, None]
            assert one.results() == other.results() == [f"by-{n}" for n in range(COUNT)]

    asyncio.run(scenario())


@pytest.mark.parametrize("gone", ["replaced", "node lost", "node came back"])
def test_a_claim_of_a_lost_rank_is_taken_over_and_its_word_refused(gone: str) -> None:
    async def scenario() -> None:
        state = MemoryState()
        first, second = await rank(state, 0), await rank(state, 1)
        async with seen_by(state, first) as one, seen_by(state, second) as other:
            held = await other.take()
            assert held is not None
            assert await do(one, COUNT - 1) == [number for number in range(COUNT) if number != held]
            waiting = asyncio.create_task(one.take())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            fresh = node_pb2.Node(id="w1", incarnation="2").SerializeToString()
            gone_for = {
                "replaced": Remove(keys.task("w1", "j-r1", 1)),
                "node lost": Remove(keys.node("w1")),
                "node came back": Write(keys.node("w1"), fresh),
            }
            await state.commit([], [gone_for[gone]])
            assert await waiting == held
            assert not await other.finish(held, "stale")
            assert await one.finish(held, "right")
            assert one.results()[held] == "right"

    asyncio.run(scenario())


def test_a_lost_answer_neither_loses_nor_repeats_a_shard() -> None:
    async def scenario() -> None:
        state = Flaky()
        async with seen_by(state, await rank(state, 0)) as mine:
            state.lost_answers = 1
            number = await mine.take()
            assert number == 0
            state.lost_answers = 2
            assert await mine.finish(number, "once")
            assert await do(mine, COUNT - 1) == [*range(1, COUNT)]
            assert mine.results()[0] == "once"

    asyncio.run(scenario())
