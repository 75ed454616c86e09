"""Two schedulers as real processes, with agents that only pretend to work."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest

from lepton_ai.errors import InvalidArgumentError, NotFoundError
from lepton_ai.learn.config import declare_model, declare_objective
from lepton_ai.learn.layers import Dense, Flatten
from lepton_ai.proto.v1 import (
    deployment_pb2,
    job_pb2,
    node_pb2,
    scheduler_pb2,
    storage_pb2,
    task_pb2,
)
from lepton_ai.proto.v1.scheduler_pb2_grpc import SchedulerServiceStub
from lepton_ai.rpc import open_channel, translated_errors
from lepton_runtime import keys
from lepton_runtime.auth import make_keys
from lepton_runtime.bus import job_logs, job_progress
from lepton_runtime.etcd import EtcdState
from lepton_runtime.nats import NatsBus
from lepton_runtime.servers import start_etcd, start_nats
from lepton_runtime.state import Exists, Put, Snapshot, Write

TIMEOUT_S = 30.0
_MODEL = declare_model("CNN", (8, 8, 1), [Flatten(), Dense(units=10, activation="softmax")])
CONFIG = json.dumps(
    replace(
        _MODEL, objective=declare_objective(_MODEL, loss="sparse_categorical_crossentropy")
    ).to_dict()
)


@dataclass
class Cluster:
    """Schedulers with their own etcd and NATS."""

    folder: Path
    state: EtcdState
    bus: NatsBus
    token: str
    settings: dict[str, str]
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def start(self, name: str) -> None:
        own = {"LEPTON_NODE_ID": name, "LEPTON_DATA_DIR": str(self.folder / name)}
        self.processes[name] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lepton_scheduler"), env={**os.environ, **self.settings, **own}
        )

    async def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        await process.wait()

    async def stub(self, name: str) -> SchedulerServiceStub:
        await eventually(lambda: self._is_member(name))
        record = await self.state.get(keys.node(name))
        assert record is not None
        node = node_pb2.Node.FromString(record.value)
        self.channels.append(open_channel(node.address, self.token))
        return SchedulerServiceStub(self.channels[-1])

    async def _is_member(self, name: str) -> bool:
        return await self.state.get(keys.node(name)) is not None

    async def leader(self) -> str:
        record = await self.state.get(keys.ELECTION)
        return record.value.decode() if record else ""

    async def put(self, key: str, value: bytes) -> None:
        await self.state.commit([], [Write(key, value)])

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()
        for name in list(self.processes):
            await self.kill(name)
        await self.bus.close()
        await self.state.close()


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not await holds():  # noqa: ASYNC110 - other processes are watched
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running_cluster(folder: Path) -> AsyncGenerator[Cluster]:
    make_keys(folder / "keys", time.time())
    etcd, nats = await start_etcd(folder / "etcd"), await start_nats(folder / "nats")
    servers = [f"nats://{nats.address}"]
    cluster = Cluster(
        folder=folder,
        state=EtcdState([etcd.address]),
        bus=await NatsBus.connect(servers),
        token=(folder / "keys/admin.token").read_text(),
        settings={
            "LEPTON_ETCD_ENDPOINTS": json.dumps([etcd.address]),
            "LEPTON_NATS_SERVERS": json.dumps(servers),
            "LEPTON_KEYS_DIR": str(folder / "keys"),
            "LEPTON_ELECTION_TTL_S": "2",
        },
    )
    try:
        for name in ("worker-1", "worker-2"):
            await cluster.put(keys.node(name), worker(name).SerializeToString())
        await cluster.put(keys.dataset("digits", 1), dataset().SerializeToString())
        for name in ("scheduler-1", "scheduler-2"):
            await cluster.start(name)
        yield cluster
    finally:
        await cluster.close()
        await nats.stop()
        await etcd.stop()


def worker(name: str) -> node_pb2.Node:
    return node_pb2.Node(
        id=name,
        role=node_pb2.NODE_ROLE_WORKER,
        incarnation="1",
        capacity=node_pb2.Resources(cpus=2, memory_bytes=1 << 30),
    )


def dataset() -> storage_pb2.Dataset:
    return storage_pb2.Dataset(
        name="digits", version=1, splits=[storage_pb2.Split(name="train", rows=100)]
    )


def training(**changes: object) -> job_pb2.JobSpec:
    train = job_pb2.TrainSpec(
        dataset="digits", model_config=CONFIG, epochs=1, batch_size=32, publish_as="digits"
    )
    return job_pb2.JobSpec(
        **{"workers": job_pb2.WorkerRange(min=2, max=2), "train": train, **changes}  # pyright: ignore
    )


async def pretend_to_work(cluster: Cluster) -> None:
    """What agents do, without the work: start, run, train, and publish when told to."""
    steps = [task_pb2.TASK_STATE_STARTING, task_pb2.TASK_STATE_RUNNING]
    async for change in cluster.state.watch(keys.TASKS):
        records = change.records if isinstance(change, Snapshot) else ()
        if isinstance(change, Put):
            records = (change.record,)
        for record in records:
            task = task_pb2.Task.FromString(record.value)
            states = list(steps)
            if task.HasField("trainer"):
                states.append(task_pb2.TASK_STATE_TRAINED)
            if task.trainer.publish:
                states = [task_pb2.TASK_STATE_SUCCEEDED]
            for state in states:
                await say(cluster, record.key, task, state)


async def say(cluster: Cluster, key: str, task: task_pb2.Task, state: task_pb2.TaskState) -> None:
    status = task_pb2.TaskStatus(
        task_id=task.id, node_id=task.node_id, attempt=task.attempt, state=state
    )
    if task.HasField("replica"):
        status.replica.CopyFrom(task.replica)
    if state == task_pb2.TASK_STATE_SUCCEEDED:
        status.result.model_version = 7
    write = Write(keys.task_status(task.node_id, task.id), status.SerializeToString())
    await cluster.state.commit([Exists(key)], [write])


async def ended(stub: SchedulerServiceStub, job_id: str) -> job_pb2.Job:
    """Follow a job to its end."""
    job = job_pb2.Job()
    async with asyncio.timeout(TIMEOUT_S):
        async for event in stub.WatchJob(scheduler_pb2.WatchJobRequest(id=job_id)):
            if event.HasField("job"):
                job = event.job
    return job


async def first_progress(stub: SchedulerServiceStub, job_id: str) -> job_pb2.JobProgress:
    async with asyncio.timeout(TIMEOUT_S):
        async for event in stub.WatchJob(scheduler_pb2.WatchJobRequest(id=job_id)):
            if event.HasField("progress"):
                return event.progress
    raise AssertionError("the job ended without progress")


def test_a_job_is_placed_followed_and_finished(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_cluster(tmp_path) as cluster:
            stub = await cluster.stub("scheduler-1")
            request = scheduler_pb2.SubmitJobRequest(spec=training(), idempotency_key="once")
            job = (await stub.SubmitJob(request)).job
            again = (await stub.SubmitJob(request)).job
            assert again.id == job.id
            assert job.spec.train.dataset == "digits:1"
            progress = job_pb2.JobProgress(job_id=job.id, metrics={"loss": 0.5})
            await cluster.bus.publish(job_progress(job.id), progress.SerializeToString())
            assert (await first_progress(stub, job.id)).metrics["loss"] == 0.5
            line = job_pb2.LogLine(job_id=job.id, text="epoch 1")
            await cluster.bus.publish(job_logs(job.id), line.SerializeToString())
            await eventually(lambda: is_placed(cluster, 3))
            agents = asyncio.create_task(pretend_to_work(cluster))
            finished = await ended(stub, job.id)
            assert finished.state == job_pb2.JOB_STATE_SUCCEEDED
            assert finished.result.model_version == 7
            await eventually(lambda: is_placed(cluster, 0))
            agents.cancel()
            logs = stub.StreamLogs(scheduler_pb2.StreamLogsRequest(id=job.id, follow=True))
            assert [entry.line.text async for entry in logs] == ["epoch 1"]
            listed = (await stub.ListJobs(scheduler_pb2.ListJobsRequest())).jobs
            assert [entry.id for entry in listed] == [job.id]

    asyncio.run(run())


def test_another_scheduler_takes_over(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_cluster(tmp_path) as cluster:
            await eventually(lambda: leads(cluster, {"scheduler-1", "scheduler-2"}))
            leader = await cluster.leader()
            standby = ({"scheduler-1", "scheduler-2"} - {leader}).pop()
            stub = await cluster.stub(standby)
            job = (await stub.SubmitJob(scheduler_pb2.SubmitJobRequest(spec=training()))).job
            await cluster.kill(leader)
            agents = asyncio.create_task(pretend_to_work(cluster))
            finished = await ended(stub, job.id)
            agents.cancel()
            assert finished.state == job_pb2.JOB_STATE_SUCCEEDED
            await eventually(lambda: leads(cluster, {standby}))

    asyncio.run(run())


def test_replicas_come_and_go_with_their_deployment(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_cluster(tmp_path) as cluster:
            model = storage_pb2.Model(name="digits", version=1, onnx_object="b3-1")
            await cluster.put(keys.model("digits", 1), model.SerializeToString())
            stub = await cluster.stub("scheduler-2")
            agents = asyncio.create_task(pretend_to_work(cluster))
            spec = deployment_pb2.DeploymentSpec(name="digits", model="digits", replicas=2)
            await stub.ApplyDeployment(scheduler_pb2.ApplyDeploymentRequest(spec=spec))
            wanted = deployment_pb2.DEPLOYMENT_STATE_READY

            async def is_ready() -> bool:
                request = scheduler_pb2.GetDeploymentRequest(name="digits")
                return (await stub.GetDeployment(request)).deployment.state == wanted

            await eventually(is_ready)
            await stub.DeleteDeployment(scheduler_pb2.DeleteDeploymentRequest(name="digits"))
            await eventually(lambda: is_placed(cluster, 0))
            agents.cancel()

    asyncio.run(run())


def test_bad_requests_say_what_is_allowed(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_cluster(tmp_path) as cluster:
            stub = await cluster.stub("scheduler-1")

            async def submit(spec: job_pb2.JobSpec) -> None:
                async with translated_errors():
                    await stub.SubmitJob(scheduler_pb2.SubmitJobRequest(spec=spec))

            with pytest.raises(InvalidArgumentError, match="2 workers with 4 cpus"):
                await submit(training(resources=node_pb2.Resources(cpus=64)))
            misspelt = training()
            misspelt.train.dataset = "digit"
            with pytest.raises(NotFoundError, match="did you mean 'digits'"):
                await submit(misspelt)
            unknown = deployment_pb2.DeploymentSpec(name="digits", model="digits")
            with pytest.raises(NotFoundError, match="model 'digits' does not exist"):
                async with translated_errors():
                    await stub.ApplyDeployment(scheduler_pb2.ApplyDeploymentRequest(spec=unknown))
            assert not (await stub.ListJobs(scheduler_pb2.ListJobsRequest())).jobs

    asyncio.run(run())


async def is_placed(cluster: Cluster, count: int) -> bool:
    return len((await cluster.state.list(keys.TASKS)).records) == count


async def leads(cluster: Cluster, names: set[str]) -> bool:
    return await cluster.leader() in names
