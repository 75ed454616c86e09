"""Evaluations and batch predictions from their record to their result: the leader and agents, with
state and storage in memory, and ranks that are processes, some of which are killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from lepton_ai import Sequential
from lepton_ai.chunking import CHUNK_BYTES
from lepton_ai.proto.v1 import event_pb2, job_pb2, node_pb2, storage_pb2, task_pb2
from lepton_ai.splits import arrays_to_split, read_split
from lepton_runtime import keys
from lepton_runtime.bus import EVENTS
from lepton_runtime.cancellation import end
from lepton_runtime.clock import SystemClock
from lepton_runtime.election import Election
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_runtime.state import Put, Remove, Snapshot, Write
from lepton_scheduler.cluster import ENDED
from lepton_scheduler.leader import Leader
from lepton_scheduler.transitions import moved
from lepton_worker.agent import Agent, StatusWriter
from lepton_worker.devices import Devices
from lepton_worker.runners import Runners
from lepton_worker.settings import Listen
from tests.support.trainers import run_node

from .test_programs import TIMEOUT_S, Objects

ROWS, SHARD_ROWS, CLASSES = 5_000, 64, 3
SHARDS = -(-ROWS // SHARD_ROWS)
HALF, EVERY = SHARDS // 2, 10 * SHARDS


class Storage(Objects):
    """Storage that is a folder, with one model and one dataset."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._scratch = folder.parent
        chance = np.random.default_rng(5)
        self.x = chance.standard_normal((ROWS, 64), dtype=np.float32)
        self.y = (self.x @ chance.standard_normal((64, CLASSES))).argmax(axis=1)
        self.learner = Sequential((64,), [("dense", {"units": CLASSES, "activation": "softmax"})])
        self.learner.compile("adam", "sparse_categorical_crossentropy", ["accuracy", "f1"])
        self.learner.fit(self.x[:2000], self.y[:2000], epochs=1)
        self.made: list[storage_pb2.CreateDatasetRequest] = []
        # What came of a shard is stored only where a test lets it.
        self.allowed = asyncio.Semaphore(0)

    async def store(self, path: Path) -> str:
        if path.name.startswith("shard-"):
            await self.allowed.acquire()
        return await super().store(path)

    def allow(self, shards: int) -> None:
        for _ in range(shards):
            self.allowed.release()

    async def prepare(self) -> None:
        path = self._scratch / "model.onnx"
        self.learner.export_onnx(path)
        self._model = storage_pb2.Model(
            name="plane",
            version=1,
            onnx_object=await self.store(path),
            model_config=json.dumps(self.learner.to_config()),
        )
        self._splits: dict[str, storage_pb2.Split] = {}
        for name, x in ("points:1", self.x), ("narrow:1", self.x[:, :3]):
            split, content = arrays_to_split("test", {"x": x, "y": self.y})
            path.write_bytes(content)
            split.object_id = await self.store(path)
            self._splits[name] = split

    async def model(self, name: str, version: int) -> storage_pb2.Model:
        assert (name, version) == ("plane", 1)
        return self._model

    async def split(self, dataset: str, split: str) -> storage_pb2.Split:
        assert split == "test"
        return self._splits[dataset]

    async def size_bytes(self, object_id: str) -> int:
        return (await self.fetch(object_id)).stat().st_size

    async def fetch_chunk(self, object_id: str, number: int) -> Path:
        content = (await self.fetch(object_id)).read_bytes()
        path = self._scratch / f"chunk-{number}"
        path.write_bytes(content[number * CHUNK_BYTES :][:CHUNK_BYTES])
        return path

    async def add_dataset(self, request: storage_pb2.CreateDatasetRequest) -> storage_pb2.Dataset:
        self.made.append(request)
        return storage_pb2.Dataset(name=request.name, version=len(self.made))

    def expected(self, path: Path) -> NDArray[Any]:
        """What the model makes of every row."""
        self.learner.export_onnx(path)
        session = onnxruntime.InferenceSession(path.read_bytes())
        return np.asarray(session.run(None, {"input": self.x})[0])


class World:
    """A leader, and nodes that come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.storage = folder, Storage(folder / "objects")
        self.state, self.bus = MemoryState(), MemoryBus()
        self.agents: dict[str, asyncio.Task[None]] = {}
        self.runners: dict[str, Runners] = {}

    async def start(self, name: str) -> None:
        statuses, storage = StatusWriter(self.state, name), cast("Any", self.storage)
        listen = Listen("127.0.0.1", "127.0.0.1", None)
        runs, idle = self.folder / name, cast("Any", None)
        runners = Runners(self.state, self.bus, statuses, storage, idle, runs, listen, Devices(0))
        agent = Agent(self.state, name, "1", runners, statuses)
        self.runners[name] = runners
        self.agents[name] = asyncio.create_task(run_node(agent, runners))
        node = node_pb2.Node(id=name, role=node_pb2.NODE_ROLE_WORKER, incarnation="1")
        node.capacity.cpus = 1
        await self.state.commit([], [Write(keys.node(name), node.SerializeToString())])

    async def lose(self, name: str) -> None:
        await end(self.agents.pop(name))
        await self.state.commit([], [Remove(keys.node(name))])

    def pids(self, rank: str) -> list[int]:
        """The processes of a rank."""
        found = (runners.pid(rank) for runners in self.runners.values())
        return [pid for pid in found if pid]

    def kill(self, rank: str) -> None:
        """kill -9 the process of a rank."""
        (pid,) = self.pids(rank)
        os.kill(pid, signal.SIGKILL)

    async def submit(
        self, job_id: str, output: str, workers: int, dataset: str = "points:1"
    ) -> None:
        job = job_pb2.Job(id=job_id, state=job_pb2.JOB_STATE_QUEUED, attempt=1)
        job.spec.workers.min, job.spec.workers.max = 1, workers
        job.spec.resources.CopyFrom(node_pb2.Resources(cpus=1))
        job.spec.score.CopyFrom(
            job_pb2.ScoreSpec(
                model="plane:1",
                dataset=dataset,
                split="test",
                output=output,
                shard_rows=SHARD_ROWS,
            )
        )
        await self.state.commit([], [Write(keys.job(job_id), job.SerializeToString())])

    async def ended(self, job_id: str) -> job_pb2.Job:
        async with asyncio.timeout(TIMEOUT_S):
            record = await self.state.get(keys.job(job_id))
            assert record is not None
            job = job_pb2.Job.FromString(record.value)
            async with aclosing(self.state.watch(keys.job(job_id))) as changes:
                while job.state not in ENDED:
                    change = await anext(changes)
                    if isinstance(change, Put):
                        job = job_pb2.Job.FromString(change.record.value)
        return job

    async def half_way(self, job_id: str) -> dict[str, task_pb2.Shard]:
        """Have both ranks do some shards, and none more; answers those that are done."""
        await self.until(job_id, lambda shards: len({each.task_id for each in shards}) == 2)
        self.storage.allow(HALF)
        await self.until(job_id, lambda shards: sum(bool(s.result_object) for s in shards) == HALF)
        return await self.shards(job_id)

    async def until(self, job_id: str, holds: Callable[[list[task_pb2.Shard]], bool]) -> None:
        known: dict[str, task_pb2.Shard] = {}
        async with asyncio.timeout(TIMEOUT_S):
            async with aclosing(self.state.watch(keys.shards(job_id))) as changes:
                async for change in changes:
                    records = change.records if isinstance(change, Snapshot) else ()
                    for record in (change.record,) if isinstance(change, Put) else records:
                        known[record.key] = task_pb2.Shard.FromString(record.value)
                    if holds(list(known.values())):
                        return

    async def shards(self, job_id: str) -> dict[str, task_pb2.Shard]:
        """The shards that are done."""
        records = (await self.state.list(keys.shards(job_id))).records
        found = {record.key: task_pb2.Shard.FromString(record.value) for record in records}
        return {key: shard for key, shard in found.items() if shard.result_object}


@asynccontextmanager
async def running(folder: Path, *nodes: str) -> AsyncGenerator[World]:
    world = World(folder)
    await world.storage.prepare()
    election = Election(world.state, keys.ELECTION, "s1", 4)
    leader = Leader(world.state, world.bus, SystemClock(), election, "s1")
    leading = asyncio.create_task(leader.run())
    for name in nodes:
        await world.start(name)
    try:
        yield world
    finally:
        await end(leading)
        for agent in world.agents.values():
            await end(agent)


async def _undisturbed(world: World, output: str) -> job_pb2.Job:
    """The same work, by one rank that nobody disturbs."""
    await world.submit("j-0", output, workers=1)
    return await world.ended("j-0")


def test_a_killed_rank_costs_no_shard_and_changes_no_output(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, "w1", "w2") as world:
            await world.submit("j-1", "guesses", workers=2)
            before = await world.half_way("j-1")
            world.kill("j-1-r1")
            world.storage.allow(EVERY)
            job = await world.ended("j-1")
            assert (job.state, job.result.dataset) == (job_pb2.JOB_STATE_SUCCEEDED, "guesses:1")
            after = await world.shards("j-1")
            assert {key: after[key] for key in before} == before
            assert (len(before), len(after)) == (HALF, SHARDS)
            assert {shard.task_id for shard in after.values()} == {"j-1-r0", "j-1-r1"}
            (made,) = world.storage.made
            assert (made.origin.model, made.origin.dataset) == ("plane:1", "points:1")
            assert (
                made.origin.dataset_object
                == (await world.storage.split("points:1", "test")).object_id
            )
            (split,) = made.splits
            assert (split.name, split.rows) == ("test", ROWS)
            columns = read_split(await world.storage.fetch(split.object_id))
            expected = world.storage.expected(tmp_path / "again.onnx")
            np.testing.assert_allclose(columns["output"], expected, atol=1e-6)
            await _undisturbed(world, "guesses")
            assert world.storage.made[1].splits == made.splits

    asyncio.run(scenario())


def test_an_evaluation_survives_the_loss_of_a_node(tmp_path: Path) -> None:
    """No room is left for the lost rank: its claims go to the other one."""

    async def scenario() -> None:
        async with running(tmp_path, "w1", "w2") as world:
            await world.submit("j-1", "", workers=2)
            before = await world.half_way("j-1")
            await world.lose("w2")
            world.storage.allow(EVERY)
            job = await world.ended("j-1")
            assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.reason
            after = await world.shards("j-1")
            assert {key: after[key] for key in before} == before
            storage, found = world.storage, dict(job.result.metrics)
            expected = storage.learner.evaluate(storage.x, storage.y)
            measured = [found[name] for name in ("loss", "accuracy", "f1")]
            assert measured == pytest.approx(expected, rel=1e-4)
            for number in range(CLASSES):
                assert found[f"rows[{number}]"] == (storage.y == number).sum()
            undisturbed = await _undisturbed(world, "")
            assert found == dict(undisturbed.result.metrics)

    asyncio.run(scenario())


def test_data_that_does_not_fit_the_model_fails_the_job_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, "w1") as world:
            await world.submit("j-1", "guesses", workers=1, dataset="narrow:1")
            job = await world.ended("j-1")
            assert job.state == job_pb2.JOB_STATE_FAILED
            assert "has shape [64, 3]" in job.reason
            assert "this model takes [-1, 64]" in job.reason
            placed = [
                event_pb2.Event.FromString(message.payload).task_placed.task.attempt
                for message in await world.bus.kept(f"{EVENTS}.TaskPlaced")
            ]
            assert placed == [1]

    asyncio.run(scenario())


def test_a_cancelled_job_stops_its_ranks_within_seconds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, "w1", "w2") as world:
            await world.submit("j-1", "", workers=2)
            await world.half_way("j-1")
            ranks = [*world.pids("j-1-r0"), *world.pids("j-1-r1")]
            assert len(ranks) == 2
            record = await world.state.get(keys.job("j-1"))
            assert record is not None
            cancelled = job_pb2.JOB_STATE_CANCELLED
            job = moved(job_pb2.Job.FromString(record.value), cancelled, "no need", 1.0)
            await world.state.commit([], [Write(record.key, job.SerializeToString())])
            async with asyncio.timeout(5):
                while any(Path(f"/proc/{pid}").exists() for pid in ranks):  # noqa: ASYNC110, ASYNC240
                    await asyncio.sleep(0.02)

    asyncio.run(scenario())
