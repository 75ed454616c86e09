"""A program's job from its record to its result: the leader and agents, with state in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from lepton_ai.packing import pack, source_files
from lepton_ai.proto.v1 import job_pb2, node_pb2
from lepton_runtime import keys
from lepton_runtime.bus import job_logs
from lepton_runtime.cancellation import end
from lepton_runtime.clock import SystemClock
from lepton_runtime.election import Election
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_runtime.state import Put, Remove, Write
from lepton_scheduler.cluster import ENDED
from lepton_scheduler.leader import Leader
from lepton_worker.agent import Agent, StatusWriter
from lepton_worker.devices import Devices
from lepton_worker.runners import Runners
from lepton_worker.settings import Listen
from tests.support.trainers import run_node

from .test_programs import PROGRAMS, TIMEOUT_S, Objects


class World:
    """A leader, and nodes that come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.objects = folder, Objects(folder / "objects")
        self.state, self.bus = MemoryState(), MemoryBus()
        self.agents: dict[str, asyncio.Task[None]] = {}

    async def start(self, name: str) -> None:
        statuses, storage = StatusWriter(self.state, name), cast("Any", self.objects)
        listen = Listen("127.0.0.1", "127.0.0.1", None)
        runs, idle = self.folder / name, cast("Any", None)
        runners = Runners(self.state, self.bus, statuses, storage, idle, runs, listen, Devices(0))
        agent = Agent(self.state, name, "1", runners, statuses)
        self.agents[name] = asyncio.create_task(run_node(agent, runners))
        node = node_pb2.Node(id=name, role=node_pb2.NODE_ROLE_WORKER, incarnation="1")
        node.capacity.cpus = 1
        await self.state.commit([], [Write(keys.node(name), node.SerializeToString())])

    async def lose(self, name: str) -> None:
        await end(self.agents.pop(name))
        await self.state.commit([], [Remove(keys.node(name))])

    async def submit(self, entry: str, *arguments: str, fewest: int, most: int) -> None:
        archive = self.folder / "source.tar"
        pack(PROGRAMS, source_files(PROGRAMS), archive, 1_000_000)
        job = job_pb2.Job(id="j-1", state=job_pb2.JOB_STATE_QUEUED, attempt=1)
        job.spec.workers.min, job.spec.workers.max = fewest, most
        job.spec.resources.cpus = 1
        job.spec.script.source_object = await self.objects.store(archive)
        job.spec.script.entry = entry
        job.spec.script.arguments.extend(arguments)
        await self.state.commit([], [Write(keys.job("j-1"), job.SerializeToString())])

    async def ended(self) -> job_pb2.Job:
        async with asyncio.timeout(TIMEOUT_S):
            async for change in self.state.watch(keys.job("j-1")):
                if isinstance(change, Put):
                    job = job_pb2.Job.FromString(change.record.value)
                    if job.state in ENDED:
                        return job
        raise AssertionError

    async def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        lines: list[str] = []
        async with asyncio.timeout(TIMEOUT_S):
            async for message in self.bus.subscribe_all(job_logs("j-1")):
                lines.append(job_pb2.LogLine.FromString(message.payload).text)
                if holds(lines):
                    return lines
        raise AssertionError(lines)


@asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[World]:
    world = World(folder)
    election = Election(world.state, keys.ELECTION, "s1", 4)
    leader = Leader(world.state, world.bus, SystemClock(), election, "s1")
    leading = asyncio.create_task(leader.run())
    try:
        yield world
    finally:
        await end(leading)
        for agent in world.agents.values():
            await end(agent)


def test_a_program_survives_the_loss_of_a_node(tmp_path: Path) -> None:
    """Two ranks learn together; one's node is lost; the other node alone takes it to its end."""

    async def scenario() -> None:
        async with running(tmp_path) as world:
            for name in ("w1", "w2"):
                await world.start(name)
            await world.submit("ddp.py", "--steps", "25", fewest=1, most=2)
            await world.until(lambda lines: "step 12" in lines)
            await world.lose("w2")
            job = await world.ended()
            assert (job.state, job.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 2), job.reason
            assert [file.path for file in job.result.files] == ["metrics.json", "weights.json"]
            assert job.result.metrics["loss"] < 0.1
            lines = await world.until(lambda lines: lines[-1] == "step 24")
            begins = [text for text in lines if text.startswith("begins")]
            assert begins[:2] == ["begins at step 0 of 25 with 2 ranks"] * 2
            found = re.fullmatch(r"begins at step (\d+) of 25 with 1 ranks", begins[2])
            assert found is not None
            assert int(found[1]) >= 5

    asyncio.run(scenario())


def test_an_error_of_the_program_ends_its_job_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            for name in ("w1", "w2"):
                await world.start(name)
            await world.submit("wrong.py", fewest=2, most=2)
            job = await world.ended()
            assert (job.state, job.attempt) == (job_pb2.JOB_STATE_FAILED, 1)
            assert job.reason.endswith("ValueError: the fault of rank 1")

    asyncio.run(scenario())
