"""Trainers and a lighthouse as processes: ranks die, join and lose their lighthouse."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.training_job import (
    Result,
    assert_close,
    assert_same,
    result_with_another_lighthouse,
    running,
    together,
    undisturbed_result,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return asyncio.run(undisturbed_result(tmp_path_factory.mktemp("undisturbed")))


def test_a_killed_rank_is_replaced_and_the_result_is_the_undisturbed_one(
    tmp_path: Path, undisturbed: Result
) -> None:
    async def train() -> None:
        async with running(tmp_path) as job:
            _, lighthouse = await job.lighthouse()
            third = await job.warm()
            first, second = await job.ranks(lighthouse)
            await first.until(together)
            await second.child.kill()
            await first.until(lambda e: e["event"] == "progress" and e["participants"] == 1)
            seen = len(first.events)
            await job.give(third, 1, lighthouse, attempt=2)
            await first.until(lambda e: e in first.events[seen:] and together(e))
            await asyncio.gather(first.until_told("trained"), third.until_told("trained"))
            result = await job.result(first)
            assert_same(result, await job.result(third))
            assert_close(result, undisturbed)

    asyncio.run(train())


def test_a_rank_that_hangs_is_passed_over_and_catches_up(
    tmp_path: Path, undisturbed: Result
) -> None:
    async def train() -> None:
        async with running(tmp_path) as job:
            _, lighthouse = await job.lighthouse()
            first, second = await job.ranks(lighthouse)
            await first.until(together)
            os.kill(second.child.pid, signal.SIGSTOP)
            async with asyncio.timeout(10):
                await first.until(lambda e: e["event"] == "progress" and e["participants"] == 1)
            seen = len(first.events)
            os.kill(second.child.pid, signal.SIGCONT)
            await first.until(lambda e: e in first.events[seen:] and together(e))
            await asyncio.gather(first.until_told("trained"), second.until_told("trained"))
            result = await job.result(first)
            assert_same(result, await job.result(second))
            assert_close(result, undisturbed)

    asyncio.run(train())


def test_a_lost_lighthouse_costs_no_step(tmp_path: Path, undisturbed: Result) -> None:
    assert_close(asyncio.run(result_with_another_lighthouse(tmp_path)), undisturbed)


def test_who_replaces_another_waits_for_those_who_look_for_a_new_lighthouse(
    tmp_path: Path,
) -> None:
    async def train() -> None:
        async with running(tmp_path) as job:
            old, lighthouse = await job.lighthouse()
            first, second = await job.ranks(lighthouse)
            third = await job.warm()
            await first.until(together)
            await second.child.kill()
            await old.kill()
            _, moved = await job.lighthouse()
            await job.give(third, 1, moved, attempt=2)
            await third.until_told("ready")
            known = max(e["step"] for e in first.events if e["event"] == "progress")
            await first.child.tell({"op": "move_lighthouse", "address": moved})
            assert (await third.until_told("progress"))["step"] > known

    asyncio.run(train())


def test_a_job_goes_on_from_a_checkpoint_after_the_loss_of_every_rank(
    tmp_path: Path, undisturbed: Result
) -> None:
    async def train() -> None:
        async with running(tmp_path) as job:
            _, lighthouse = await job.lighthouse()
            ranks = await job.ranks(lighthouse)
            written = await ranks[0].until_told("checkpoint")
            for rank in ranks:
                await rank.child.kill()
            _, lighthouse = await job.lighthouse()
            last = await job.warm()
            await job.give(last, 0, lighthouse, attempt=2, checkpoint=written["path"])
            first = await last.until_told("progress")
            assert first["step"] > written["step"] > 0
            await last.until_told("trained")
            assert_close(await job.result(last), undisturbed)

    asyncio.run(train())
