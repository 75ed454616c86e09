"""Programs under the launcher: real processes, with state and storage in memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from lepton_ai.chunking import id_of_file
from lepton_ai.packing import pack, source_files
from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.bus import job_logs
from lepton_runtime.cancellation import end
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_runtime.state import Write
from lepton_worker.agent import StatusWriter
from lepton_worker.devices import Devices
from lepton_worker.news import News
from lepton_worker.scripts import ScriptRunner
from lepton_worker.settings import Listen
from lepton_worker.storage import WorkerStorage
from lepton_worker.trainers import Trainers

PROGRAMS = Path(__file__).parents[1] / "e2e/programs"
TIMEOUT_S = 180


class Objects:
    """Storage that is a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    async def store(self, path: Path) -> str:
        object_id = id_of_file(path)
        shutil.copyfile(path, self._folder / object_id)
        return object_id

    async def fetch(self, object_id: str) -> Path:
        return self._folder / object_id

    async def delete(self, object_id: str) -> None:
        (self._folder / object_id).unlink()


@dataclass
class Node:
    """One node that runs scripts."""

    folder: Path
    state: MemoryState = field(default_factory=MemoryState)
    bus: MemoryBus = field(default_factory=MemoryBus)
    pids: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self.objects = Objects(self.folder / "objects")
        self.statuses = StatusWriter(self.state, "w1")
        self.news = News(self.bus)
        self.runner = ScriptRunner(
            self.state,
            self.news,
            self.statuses,
            cast("WorkerStorage", self.objects),
            Trainers(),
            self.folder / "runs",
            Listen("127.0.0.1", "127.0.0.1", None),
            self.pids,
            Devices(0),
        )

    async def place(self, entry: str, rank: int = 0, world: int = 1, attempt: int = 1, **more: Any):
        archive = self.folder / "source.tar"
        pack(PROGRAMS, source_files(PROGRAMS), archive, 1_000_000)
        task = task_pb2.Task(id=f"j-r{rank}", node_id="w1", attempt=attempt)
        task.script.job_id, task.script.store_task_id = "j", "j-r0"
        task.script.rank, task.script.world_size = rank, world
        task.script.restarts = attempt - 1
        task.script.spec.source_object = await self.objects.store(archive)
        task.script.spec.entry = entry
        task.script.spec.arguments.extend(more.get("arguments", ()))
        task.resources.CopyFrom(node_pb2.Resources(cpus=1, memory_bytes=more.get("memory", 0)))
        key = keys.task("w1", task.id, attempt)
        placed = await self.state.commit([], [Write(key, task.SerializeToString())])
        assert placed is not None
        task.placed_revision = placed
        return task

    async def alone(self, entry: str, **more: Any) -> task_pb2.Task:
        """A rank that needs no store: another one has told where it keeps it."""
        status = task_pb2.TaskStatus(task_id="j-r0", attempt=1, address="127.0.0.1:1")
        key = keys.task_status("w2", "j-r0")
        await self.state.commit([], [Write(key, status.SerializeToString())])
        return await self.place(entry, rank=1, world=2, **more)

    async def run(self, *tasks: task_pb2.Task) -> list[task_pb2.TaskStatus]:
        telling = asyncio.create_task(self.news.tell())
        try:
            async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
                for task in tasks:
                    group.create_task(self.runner.run(task))
        finally:
            for _ in range(3):
                await asyncio.sleep(0)  # what was printed last is told
            await end(telling)
        return [self.statuses.latest(task.id) for task in tasks]

    async def printed(self) -> list[str]:
        messages = await self.bus.kept(job_logs("j"))
        return [job_pb2.LogLine.FromString(message.payload).text for message in messages]

    async def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """Everything printed, once that is enough."""
        lines: list[str] = []
        async with asyncio.timeout(TIMEOUT_S):
            async for message in self.bus.subscribe_all(job_logs("j")):
                lines.append(job_pb2.LogLine.FromString(message.payload).text)
                if holds(lines):
                    return lines
        raise AssertionError(lines)


def test_an_error_of_the_program_is_told_with_its_traceback(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = Node(tmp_path)
        (status,) = await node.run(await node.alone("wrong.py"))
        assert (status.state, status.user_error) == (task_pb2.TASK_STATE_FAILED, True)
        assert status.reason.startswith("rank 1 ended with exit status 1:\nTraceback")
        assert status.reason.endswith("ValueError: the fault of rank 1")

    asyncio.run(scenario())


def test_cancelling_ends_what_will_not_end_and_its_children(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = Node(tmp_path)
        running = asyncio.create_task(node.run(await node.alone("stubborn.py")))
        lines = await node.until(lambda lines: len(lines) == 2)
        began = time.monotonic()
        running.cancel()
        await asyncio.wait([running])
        assert time.monotonic() - began < 5
        assert not [pid for line in lines if (pid := Path("/proc", line.split()[1])).exists()]

    asyncio.run(scenario())


def test_a_rank_that_takes_too_much_memory_is_ended_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = Node(tmp_path)
        (status,) = await node.run(await node.alone("greedy.py", memory=200 * 1024**2))
        assert status.user_error
        assert status.reason.startswith("rank 1 ran out of memory: it used ")
        assert "of 200:" in status.reason

    asyncio.run(scenario())


def test_a_rank_that_is_killed_from_outside_may_be_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = Node(tmp_path)
        task = await node.alone("stubborn.py", arguments=["child"])
        running = asyncio.create_task(node.run(task))
        lines = await node.until(bool)
        os.kill(int(lines[0].split()[1]), signal.SIGKILL)
        (status,) = await running
        assert (status.reason, status.user_error) == ("rank 1 was killed (SIGKILL)", False)

    asyncio.run(scenario())
