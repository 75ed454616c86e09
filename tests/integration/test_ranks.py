"""Ranks as processes of their own, within limits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lepton_ai.proto.v1 import task_pb2
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_runtime.state import Write
from lepton_worker.agent import StatusWriter
from lepton_worker.child import Child
from lepton_worker.devices import Devices
from lepton_worker.news import News
from lepton_worker.ranks import Ranks, rank_of
from tests.support.trainers import kept_trainers

TIMEOUT_S = 120
MIB = 1024 * 1024


async def heard_out(child: Child) -> bool:
    """Follow a process to its end, which is no end of a rank's."""
    async for _ in child.events():
        pass
    return False


@pytest.mark.parametrize("kind", ["trainer", "score"])
def test_a_rank_over_its_memory_is_ended_and_says_so(kind: str) -> None:
    async def scenario() -> None:
        statuses = StatusWriter(state := MemoryState(), "w1")
        task = task_pb2.Task(id="j-r3", node_id="w1", attempt=1)
        getattr(task, kind).job_id = "j"
        rank_of(task).rank, task.resources.memory_bytes = 3, MIB
        placed = await state.commit([], [Write("/lepton/v1/tasks/w1/j-r3/1", b"")])
        assert placed is not None
        task.placed_revision = placed
        async with asyncio.timeout(TIMEOUT_S), kept_trainers() as trainers:
            ranks = Ranks(News(MemoryBus()), statuses, trainers, Devices(0), {})
            await ranks.run(task, {"work": "store", "bind": "127.0.0.1"}, heard_out)
        said = statuses.latest("j-r3")
        assert (said.state, said.user_error) == (task_pb2.TASK_STATE_FAILED, True)
        assert said.reason.startswith("rank 3 ran out of memory: it used ")
        assert said.reason.endswith(" MiB of 1: ask for more")

    asyncio.run(scenario())


def test_a_trainer_that_waits_for_work_sees_no_accelerator() -> None:
    async def scenario() -> None:
        async with kept_trainers() as trainers, trainers.one() as child:
            environment = await asyncio.to_thread(Path(f"/proc/{child.pid}/environ").read_bytes)
            assert b"CUDA_VISIBLE_DEVICES=" in environment.split(b"\0")

    asyncio.run(scenario())
