"""Which checkpoints of a job are kept, and which one it goes on from."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lepton_ai.errors import DataCorruptError
from lepton_ai.proto.v1 import task_pb2
from lepton_runtime import keys
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Remove, Write
from lepton_worker.resuming import JobCheckpoints


class Objects:
    """Objects by the name of their file."""

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.spoilt: set[str] = set()

    async def store(self, path: Path) -> str:
        self.stored.add(path.name)
        return path.name

    async def fetch(self, object_id: str) -> Path:
        if object_id in self.spoilt:
            raise DataCorruptError("spoilt")
        return Path(object_id)

    async def delete(self, object_id: str) -> None:
        self.stored.remove(object_id)


async def placed(state: MemoryState, attempt: int = 1) -> task_pb2.Task:
    """A rank, as its agent knows it."""
    revision = await state.commit([], [Write(keys.task("w1", "j-r0", attempt), b"")])
    assert revision is not None
    task = task_pb2.Task(id="j-r0", node_id="w1", attempt=attempt, placed_revision=revision)
    task.trainer.job_id = "j"
    return task


def test_the_newest_are_kept_and_the_newest_readable_is_used() -> None:
    async def scenario() -> None:
        state, objects = MemoryState(), Objects()
        checkpoints = JobCheckpoints(state, objects)
        assert await checkpoints.newest("j") is None
        rank = await placed(state)
        for step in (10, 20, 30, 15):
            await checkpoints.keep(rank, step, Path(f"s{step}"))
        assert objects.stored == {"s20", "s30"}
        assert await checkpoints.newest("j") == Path("s30")
        objects.spoilt.add("s30")
        assert await checkpoints.newest("j") == Path("s20")

    asyncio.run(scenario())


def test_a_job_says_how_many_are_kept() -> None:
    async def scenario() -> None:
        state, objects = MemoryState(), Objects()
        rank = await placed(state)
        rank.trainer.spec.checkpoints_kept = 3
        for step in (10, 20, 30, 40):
            await JobCheckpoints(state, objects).keep(rank, step, Path(f"s{step}"))
        assert objects.stored == {"s20", "s30", "s40"}

    asyncio.run(scenario())


def test_a_rank_that_was_replaced_leaves_nothing() -> None:
    async def scenario() -> None:
        state, objects = MemoryState(), Objects()
        checkpoints, rank = JobCheckpoints(state, objects), await placed(state)
        await state.commit([], [Remove(keys.task("w1", "j-r0", 1))])
        await checkpoints.keep(rank, 10, Path("s10"))
        assert not objects.stored
        # Neither does one whose name was given again.
        fresh = await placed(state)
        await checkpoints.keep(fresh, 5, Path("s5"))
        await checkpoints.keep(rank, 10, Path("s10"))
        assert objects.stored == {"s5"}
        assert await checkpoints.newest("j") == Path("s5")

    asyncio.run(scenario())
