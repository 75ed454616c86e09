"""Trainers as copies of one process: each talks by itself, and none outlives what it came from."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_ai.errors import UnavailableError
from lepton_worker import template, trainers
from lepton_worker.child import Child
from lepton_worker.trainers import Trainers
from tests.support.trainers import kept_trainers

TIMEOUT_S = 30
# What stands for a trainer: it says back what it hears, and prints it, until it hears no more.
ECHO = """
import os, sys
from lepton_worker.forking import go_on_as_copy
if go_on_as_copy():
    for line in sys.stdin:
        print(f'{{"heard": {line.strip()}, "parent": {os.getppid()}}}', flush=True)
        print("printed", line.strip(), file=sys.stderr)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "echo.py").write_text(ECHO)
    monkeypatch.setattr(trainers, "_MODULE", "echo")
    monkeypatch.setattr(trainers, "_ENVIRONMENT", {"PYTHONPATH": str(tmp_path)})
    monkeypatch.setattr(trainers, "_AGAIN_S", 0.0)
    return "echo"


def kept(scenario: Callable[[Trainers], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(TIMEOUT_S), kept_trainers() as pool:
            await scenario(pool)
        assert not pool.spare

    asyncio.run(run())


async def heard(child: Child, number: int) -> dict[str, Any]:
    await child.tell({"n": number})
    event = await anext(child.events())
    assert event["heard"] == {"n": number}
    return event


@pytest.mark.usefixtures("module")
def test_copies_talk_and_print_each_by_itself() -> None:
    async def scenario(pool: Trainers) -> None:
        async with pool.one() as one, pool.one() as other:
            assert pool.spare == 1
            assert one.pid != other.pid
            parents = {(await heard(child, n))["parent"] for n, child in enumerate((one, other))}
            assert len(parents) == 1
            assert await anext(aiter(other.printed())) == 'printed {"n":1}'
        assert not (one.is_alive or other.is_alive)

    kept(scenario)


@pytest.mark.usefixtures("module")
def test_the_end_of_a_copy_is_seen_and_costs_the_others_nothing() -> None:
    async def scenario(pool: Trainers) -> None:
        async with pool.one() as one, pool.one() as other:
            os.kill(one.pid, signal.SIGKILL)
            await one.ended()
            assert [event async for event in one.events()] == []
            await heard(other, 1)
            async with pool.one() as another:
                await heard(another, 2)

    kept(scenario)


@pytest.mark.usefixtures("module")
def test_a_copy_that_ends_without_hearing_everything_ends_like_any_other() -> None:
    async def scenario(pool: Trainers) -> None:
        async with pool.one() as one:
            os.kill(one.pid, signal.SIGSTOP)
            await one.tell({"n": 1})
            os.kill(one.pid, signal.SIGKILL)
            assert [event async for event in one.events()] == []

    kept(scenario)


@pytest.mark.usefixtures("module")
def test_what_they_are_copies_of_is_started_again_and_takes_its_copies_along() -> None:
    async def scenario(pool: Trainers) -> None:
        async with pool.one() as one:
            parent = (await heard(one, 1))["parent"]
            os.kill(parent, signal.SIGKILL)
            await one.ended()
        while pool.spare:  # noqa: ASYNC110 - until it is noticed
            await asyncio.sleep(0)
        async with pool.one() as another:
            assert (await heard(another, 2))["parent"] != parent

    kept(scenario)


def test_a_module_that_ends_at_once_is_told_of() -> None:
    async def scenario() -> None:
        async with template.open_template("lepton_worker.no_such_module", {}):
            pass

    with pytest.raises(UnavailableError, match="does not start"):
        asyncio.run(scenario())
