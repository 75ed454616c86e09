"""What a drill acts on: a cluster that trains a job and answers requests, under a watchful eye."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import grpc

from lepton_ai.cluster.endpoint import AsyncEndpoint
from lepton_ai.errors import DeadlineExceededError
from lepton_ai.proto.v1 import job_pb2, scheduler_pb2, scheduler_pb2_grpc, task_pb2
from lepton_ai.proto.v1.worker_pb2 import RunningTask
from lepton_ai.rpc import open_channel
from lepton_runtime import keys
from lepton_runtime.cancellation import end
from lepton_runtime.drills.lab import Lab, Layout, open_lab, until
from lepton_runtime.drills.ledger import Ledger, Moment
from lepton_runtime.drills.load import Load
from lepton_runtime.drills.training import (
    DATASET,
    STEPS_PER_EPOCH,
    Result,
    Run,
    data,
    following,
    job_spec,
    result_of,
    told_at,
)

__all__ = ["Stage", "open_stage"]

_MODEL = "drill"
_PROBE_EPOCHS = 10
_TRY_S = 1.0
_SUBMIT_S = 30.0


@dataclass
class Stage:
    """A lab with a model that answers, and for each repeat a job that trains.

    Attributes:
        lab: The processes.
        layout: What it was made from.
        ledger: Every write to etcd since the beginning.
        endpoint: The model that answers, on every worker.
        epochs: Of the job of each repeat: as many as last the drill.
        undisturbed: What that job comes to when it is left alone.
        random: Seeded anew for each repeat.
        run: The job of this repeat.
        load: The requests of this repeat.
        expected: Nodes that this repeat loses on purpose.
    """

    lab: Lab
    layout: Layout
    ledger: Ledger
    endpoint: AsyncEndpoint
    epochs: int
    undisturbed: Result
    random: Random = field(default_factory=Random)
    run: Run = field(default_factory=lambda: Run(""))
    load: Load = field(default_factory=Load)
    expected: set[str] = field(default_factory=set[str])

    async def ranks(self) -> list[RunningTask]:
        """The ranks of this repeat's job that have a process, in order."""
        workers = [await self.lab.described(name) for name in self.lab.workers]
        tasks = [task for worker in workers for task in worker.tasks]
        mine = [t for t in tasks if t.task.trainer.job_id == self.run.job_id and t.pid]
        return sorted(mine, key=lambda t: t.task.trainer.rank)

    async def lighthouse_node(self) -> str:
        """The worker that hosts the lighthouse of this repeat's job."""
        records = (await self.lab.state.list(keys.TASKS)).records
        tasks = (task_pb2.Task.FromString(record.value) for record in records)
        return next(t.node_id for t in tasks if t.lighthouse.job_id == self.run.job_id)

    async def leader(self) -> str:
        """The scheduler that leads."""
        record = await self.lab.state.get(keys.ELECTION)
        return record.value.decode() if record else ""

    async def led_anew(self, since: float) -> float:
        """When a leader was elected after `since`."""
        return await self._moment(self.ledger.leaders, "", since, "a scheduler leads")

    async def placed(self, job_id: str) -> float:
        """When the ranks of a job were placed.

        By the job's own record: where etcd was away the ledger may have missed tasks that came
        and went before it followed again.
        """
        job = job_pb2.Job()

        async def there() -> bool:
            record = await self.lab.state.get(keys.job(job_id))
            job.ParseFromString(record.value if record else b"")
            return bool(_placings(job))

        await until(there, f"{job_id} is placed")
        return _placings(job)[0]

    async def submit(self, epochs: int) -> str:
        """Submit a job until it is acknowledged, as clients do; its id."""
        return await submitted(self.lab, job_spec(epochs, self.layout.rank_cpus))

    async def ready(self) -> None:
        """Wait until everything is as it was before the last repeat."""
        await self.lab.ready()
        await self.lab.cluster.deploy(_MODEL, replicas=self.layout.workers)

    async def _moment(self, moments: list[Moment], prefix: str, since: float, what: str) -> float:
        def found() -> list[float]:
            return [m.at for m in moments if m.at > since and m.name.startswith(prefix)]

        async def there() -> bool:
            return bool(found())

        await until(there, what)
        return min(found())


def _placings(job: job_pb2.Job) -> list[float]:
    """When it was placed, each time, in seconds since the epoch."""
    placed = job_pb2.JOB_STATE_PLACED
    return [step.at.ToNanoseconds() / 1e9 for step in job.history if step.state == placed]


async def submitted(lab: Lab, spec: job_pb2.JobSpec) -> str:
    """Submit a job until it is acknowledged; one and the same, however often it is sent."""
    request = scheduler_pb2.SubmitJobRequest(spec=spec, idempotency_key=uuid.uuid4().hex)
    deadline = time.monotonic() + _SUBMIT_S
    profile = lab.profile
    async with open_channel(profile.address, profile.api_key) as channel:
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        while time.monotonic() < deadline:
            with contextlib.suppress(grpc.aio.AioRpcError):
                return (await stub.SubmitJob(request, timeout=_TRY_S)).job.id
            await asyncio.sleep(0.05)
    raise DeadlineExceededError(f"no job was accepted within {_SUBMIT_S:g} s")


@contextlib.asynccontextmanager
async def open_stage(home: Path, layout: Layout, lasts_s: float) -> AsyncGenerator[Stage]:
    """A lab in which the job of a repeat lasts about `lasts_s`, with what comes of it."""
    async with open_lab(home, layout) as lab:
        ledger = Ledger()
        following_etcd = asyncio.create_task(ledger.follow(lab.state))
        try:
            await lab.cluster.upload(DATASET, {"train": data()})
            epochs = await _epochs_that_last(lab, layout, lasts_s)
            endpoint = await lab.cluster.deploy(_MODEL, replicas=layout.workers)
            undisturbed = await result_of(
                lab, await submitted(lab, job_spec(epochs, layout.rank_cpus))
            )
            yield Stage(lab, layout, ledger, endpoint, epochs, undisturbed)
        finally:
            await end(following_etcd)


async def _epochs_that_last(lab: Lab, layout: Layout, lasts_s: float) -> int:
    """How many epochs take so long here; publishes the model that is asked later."""
    job_id = await submitted(lab, job_spec(_PROBE_EPOCHS, layout.rank_cpus, _MODEL))
    async with following(lab, job_id) as run:
        await result_of(lab, job_id)
    first, last = run.told[0], run.told[-1]
    per_s = (last.step - first.step) / max(told_at(last) - told_at(first), 0.1)
    return max(_PROBE_EPOCHS, round(lasts_s * per_s / STEPS_PER_EPOCH))
