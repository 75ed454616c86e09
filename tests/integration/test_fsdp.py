"""Ranks of several processes, each with a part of the model: they die, join and go on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_worker.process_tree import descendants
from tests.support.training_job import (
    WAIT_S,
    Kind,
    Result,
    assert_close,
    assert_same,
    result_with_another_lighthouse,
    running,
    together,
    undisturbed_result,
)

WHOLE = Kind(
    input_shape=(6, 6, 1),
    hidden=(
        ("conv", {"filters": 5, "kernel_size": 3, "padding": "same", "activation": "relu"}),
        "flatten",
        ("dense", {"units": 7, "activation": "relu"}),
    ),
    epochs=6,
)
SHARDED = WHOLE._replace(shards=2)


def running_of(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The result of one rank of one process."""
    return asyncio.run(undisturbed_result(tmp_path_factory.mktemp("undisturbed"), WHOLE))


def test_two_ranks_of_two_processes_give_the_result_of_one(
    tmp_path: Path, undisturbed: Result
) -> None:
    async def train() -> None:
        async with running(tmp_path, SHARDED) as job:
            _, lighthouse = await job.lighthouse()
            ranks = await job.ranks(lighthouse)
            await ranks[0].until(together)
            for rank in ranks:
                assert len(descendants(rank.child.pid)) == 1
            await asyncio.gather(*(rank.until_told("trained") for rank in ranks))
            result = await job.result(ranks[0])
            assert_same(result, await job.result(ranks[1]))
            assert_close(result, undisturbed)

    asyncio.run(train())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_is_the_end_of_its_rank_which_is_replaced(
    tmp_path: Path, undisturbed: Result, number: signal.Signals
) -> None:
    async def train() -> None:
        async with running(tmp_path, SHARDED) as job:
            _, lighthouse = await job.lighthouse()
            third = await job.warm()
            first, second = await job.ranks(lighthouse)
            await first.until(together)
            os.kill(descendants(second.child.pid)[0], number)
            failed = await second.until_told("failed")
            assert (failed["error"], failed["user_error"]) == ("its process 1 of 2 died", False)
            async with asyncio.timeout(WAIT_S):
                await second.child.ended()
            await first.until(lambda e: e["event"] == "progress" and e["participants"] == 1)
            seen = len(first.events)
            await job.give(third, 1, lighthouse, attempt=2)
            await first.until(lambda e: e in first.events[seen:] and together(e))
            await asyncio.gather(first.until_told("trained"), third.until_told("trained"))
            result = await job.result(first)
            assert_same(result, await job.result(third))
            assert_close(result, undisturbed)

    asyncio.run(train())


def test_a_lost_lighthouse_costs_no_step(tmp_path: Path, undisturbed: Result) -> None:
    assert_close(asyncio.run(result_with_another_lighthouse(tmp_path, SHARDED)), undisturbed)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_checkpoint_is_for_any_number_of_processes(
    tmp_path: Path, undisturbed: Result, before: int, after: int
) -> None:
    async def train() -> None:
        async with running(tmp_path, WHOLE) as job:
            job.kind = WHOLE._replace(shards=before)
            _, lighthouse = await job.lighthouse()
            ranks = await job.ranks(lighthouse)
            written = await ranks[0].until_told("checkpoint")
            further = [pid for rank in ranks for pid in descendants(rank.child.pid)]
            assert len(further) == 2 * (before - 1)
            for rank in ranks:
                await rank.child.kill()
            job.kind = WHOLE._replace(shards=after)
            _, lighthouse = await job.lighthouse()
            last = await job.warm()
            await job.give(last, 0, lighthouse, attempt=2, checkpoint=written["path"])
            first = await last.until_told("progress")
            assert first["step"] > written["step"] > 0
            await last.until_told("trained")
            assert not running_of(further)
            assert_close(await job.result(last), undisturbed)

    asyncio.run(train())


@pytest.mark.parametrize("optimizer", ["gradient_descent", "sgd", "adam", "adamw", "rmsprop"])
def test_each_process_holds_half_of_what_one_would(optimizer: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.support.sharded_trainer", optimizer]
    run = subprocess.run(command, stdout=subprocess.PIPE, timeout=WAIT_S, check=True)
    found = json.loads(run.stdout)
    assert found["names"]
    assert found["kept"]
    assert found["off"] < 1e-5
    for held in zip(*found["held"], found["whole"], strict=True):
        *parts, whole = held
        assert sum(parts) == whole
        assert all(abs(part - whole / 2) <= 0.1 * whole for part in parts)
