"""SchedulerService on the wire: convert, check, write desired state, convert."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

from google.protobuf.message import Message

from lepton_ai.errors import ConflictError, LeptonError, NotFoundError, PermissionDeniedError
from lepton_ai.names import check_name
from lepton_ai.proto.v1 import (
    deployment_pb2,
    event_pb2,
    job_pb2,
    node_pb2,
    scheduler_pb2,
    task_pb2,
)
from lepton_ai.proto.v1.scheduler_pb2_grpc import SchedulerServiceServicer
from lepton_runtime import keys
from lepton_runtime.bus import job_logs, job_progress
from lepton_runtime.events import publish_event
from lepton_runtime.server import principal
from lepton_runtime.service import Runtime
from lepton_runtime.state import Absent, Condition, Operation, Remove, Snapshot, Unchanged, Write
from lepton_runtime.state import Put as StatePut
from lepton_scheduler.cluster import ENDED, job_of
from lepton_scheduler.sources import Sources
from lepton_scheduler.submission import (
    check_change,
    check_deployment,
    check_job,
    check_shadow,
    check_variant,
    not_found,
)
from lepton_scheduler.transitions import moved
from lepton_scheduler.workers import WorkerMarks

__all__ = ["SchedulerServicer"]

_MessageT = TypeVar("_MessageT", bound=Message)
_ATTEMPTS = 8
_QUEUE = 1_000
# Lines printed just before a job ended may still be on their way.
_LAST_LINES_S = 1.0


class SchedulerServicer(SchedulerServiceServicer):
    """Any scheduler answers, leading or not: it reads and writes etcd, nothing else."""

    def __init__(self, runtime: Runtime) -> None:
        self._state = runtime.state
        self._bus = runtime.bus
        self._clock = runtime.clock
        self._node_id = runtime.settings.node_id
        self._workers = WorkerMarks(runtime.state)
        self._sources = Sources(runtime.state)

    async def SubmitJob(
        self, request: scheduler_pb2.SubmitJobRequest, context: Any
    ) -> scheduler_pb2.SubmitJobResponse:
        """Accept a job, or answer the one its idempotency key made before."""
        if request.spec.HasField("script") and not principal().may_run_code:
            raise PermissionDeniedError(
                "the key may not run code",
                hint="ask for one made by 'lepton keys create --run-code'",
            )
        spec = check_job(request.spec, await self._living_workers())
        await self._sources.pin(spec)
        job = job_pb2.Job(
            id=f"j-{uuid.uuid4().hex[:12]}",
            tenant=principal().tenant,
            spec=spec,
            attempt=1,
            idempotency_key=request.idempotency_key,
        )
        now = self._clock.now()
        job.created_at.FromNanoseconds(int(now * 1e9))
        accepted = await self._accept(moved(job, job_pb2.JOB_STATE_QUEUED, "accepted", now))
        return scheduler_pb2.SubmitJobResponse(job=accepted)

    async def GetJob(
        self, request: scheduler_pb2.GetJobRequest, context: Any
    ) -> scheduler_pb2.GetJobResponse:
        """A job with its tasks."""
        job, _ = await self._job(request.id)
        tasks = [
            task
            for task in await self._all(keys.TASKS, task_pb2.Task)
            if job_of(task) == request.id
        ]
        return scheduler_pb2.GetJobResponse(
            job=job, tasks=tasks, statuses=await self._statuses(tasks)
        )

    async def ListJobs(
        self, request: scheduler_pb2.ListJobsRequest, context: Any
    ) -> scheduler_pb2.ListJobsResponse:
        """All jobs, the newest first."""
        jobs = await self._all(keys.JOBS, job_pb2.Job)
        jobs.sort(key=lambda job: job.created_at.ToNanoseconds(), reverse=True)
        return scheduler_pb2.ListJobsResponse(jobs=jobs)

    async def CancelJob(
        self, request: scheduler_pb2.CancelJobRequest, context: Any
    ) -> scheduler_pb2.CancelJobResponse:
        """Mark a job as cancelled; the leader stops its ranks."""
        for _ in range(_ATTEMPTS):
            job, revision = await self._job(request.id)
            if job.state in ENDED:
                return scheduler_pb2.CancelJobResponse(job=job)
            reason = f"cancelled by {principal().tenant or 'an administrator'}"
            now = self._clock.now()
            cancelled = moved(job, job_pb2.JOB_STATE_CANCELLED, reason, now)
            if await self._write(keys.job(job.id), cancelled, revision):
                event = event_pb2.JobStateChanged(job=cancelled, previous=job.state)
                await publish_event(self._bus, self._clock, self._node_id, event)
                return scheduler_pb2.CancelJobResponse(job=cancelled)
        raise ConflictError("the job keeps changing", hint="try again", job=request.id)

    async def WatchJob(
        self, request: scheduler_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[scheduler_pb2.WatchJobResponse]:
        """State from etcd and progress from the bus, as one stream until the job ends."""
        await self._job(request.id)
        merged: asyncio.Queue[scheduler_pb2.WatchJobResponse] = asyncio.Queue(_QUEUE)
        async with _background(
            self._feed_states(request.id, merged), self._feed_progress(request.id, merged)
        ):
            while True:
                event = await merged.get()
                yield event
                if event.HasField("job") and event.job.state in ENDED:
                    return

    async def StreamLogs(
        self, request: scheduler_pb2.StreamLogsRequest, context: Any
    ) -> AsyncIterator[scheduler_pb2.StreamLogsResponse]:
        """Kept lines, and with `follow` further ones until the job has ended."""
        await self._job(request.id)
        after = request.after_sequence
        ended = not request.follow
        while True:
            for message in await self._bus.kept(job_logs(request.id), after):
                after = message.sequence
                line = job_pb2.LogLine.FromString(message.payload)
                line.sequence = message.sequence
                yield scheduler_pb2.StreamLogsResponse(line=line)
            if ended:
                return
            job, _ = await self._job(request.id)
            ended = job.state in ENDED
            await self._clock.sleep(_LAST_LINES_S)

    async def ApplyDeployment(
        self, request: scheduler_pb2.ApplyDeploymentRequest, context: Any
    ) -> scheduler_pb2.ApplyDeploymentResponse:
        """Create a deployment or change it."""
        spec = check_deployment(request.spec)
        if spec.alias:
            spec.version = (await self._sources.alias(spec.model, spec.alias)).version
        model = await self._sources.model(spec.model, spec.version)
        check_variant(spec.variant, model)
        spec.version = model.version
        for step in (*spec.before, *spec.after):
            step.version = (await self._sources.model(step.model, step.version)).version
        for _ in range(_ATTEMPTS):
            record = await self._state.get(keys.deployment(spec.name))
            deployment = deployment_pb2.Deployment()
            if record is not None:
                deployment.ParseFromString(record.value)
                check_change(deployment.spec, spec)
                if deployment.serving_version:
                    check_change(deployment.serving_spec, spec)
            else:
                deployment.tenant = principal().tenant
                deployment.created_at.FromNanoseconds(int(self._clock.now() * 1e9))
            check_shadow(spec, deployment.serving_version)
            deployment.spec.CopyFrom(spec)
            deployment.generation += 1
            deployment.state = deployment_pb2.DEPLOYMENT_STATE_PROGRESSING
            deployment.reason = "accepted"
            deployment.updated_at.FromNanoseconds(int(self._clock.now() * 1e9))
            revision = record.mod_revision if record else 0
            if await self._write(keys.deployment(spec.name), deployment, revision):
                return scheduler_pb2.ApplyDeploymentResponse(deployment=deployment)
        raise ConflictError("the deployment keeps changing", hint="try again")

    async def GetDeployment(
        self, request: scheduler_pb2.GetDeploymentRequest, context: Any
    ) -> scheduler_pb2.GetDeploymentResponse:
        """A deployment with its replicas."""
        deployment = await self._deployment(request.name)
        tasks = [
            task
            for task in await self._all(keys.TASKS, task_pb2.Task)
            if task.replica.deployment == request.name
        ]
        return scheduler_pb2.GetDeploymentResponse(
            deployment=deployment, tasks=tasks, statuses=await self._statuses(tasks)
        )

    async def ListDeployments(
        self, request: scheduler_pb2.ListDeploymentsRequest, context: Any
    ) -> scheduler_pb2.ListDeploymentsResponse:
        """All deployments."""
        deployments = await self._all(keys.DEPLOYMENTS, deployment_pb2.Deployment)
        return scheduler_pb2.ListDeploymentsResponse(deployments=deployments)

    async def DeleteDeployment(
        self, request: scheduler_pb2.DeleteDeploymentRequest, context: Any
    ) -> scheduler_pb2.DeleteDeploymentResponse:
        """Forget a deployment; the leader stops its replicas."""
        await self._deployment(request.name)
        await self._state.commit([], [Remove(keys.deployment(request.name))])
        return scheduler_pb2.DeleteDeploymentResponse()

    async def ListNodes(
        self, request: scheduler_pb2.ListNodesRequest, context: Any
    ) -> scheduler_pb2.ListNodesResponse:
        """The members that are alive."""
        leader = await self._state.get(keys.ELECTION)
        nodes = await self._all(keys.NODES, node_pb2.Node)
        tasks = Counter(task.node_id for task in await self._all(keys.TASKS, task_pb2.Task))
        cordoned = await self._workers.marked(keys.CORDONED)
        draining = await self._workers.marked(keys.DRAINING)
        for node in nodes:
            node.leader = leader is not None and node.id == leader.value.decode()
            node.tasks = tasks[node.id]
            node.cordoned = node.id in cordoned
            node.draining = node.id in draining
        return scheduler_pb2.ListNodesResponse(nodes=nodes)

    async def CordonWorker(
        self, request: scheduler_pb2.CordonWorkerRequest, context: Any
    ) -> scheduler_pb2.CordonWorkerResponse:
        """Give a worker no new work."""
        await self._workers.cordon(request.node_id)
        return scheduler_pb2.CordonWorkerResponse()

    async def DrainWorker(
        self, request: scheduler_pb2.DrainWorkerRequest, context: Any
    ) -> scheduler_pb2.DrainWorkerResponse:
        """Empty a worker; the leader moves what runs there."""
        await self._workers.drain(request.node_id)
        return scheduler_pb2.DrainWorkerResponse()

    async def UncordonWorker(
        self, request: scheduler_pb2.UncordonWorkerRequest, context: Any
    ) -> scheduler_pb2.UncordonWorkerResponse:
        """Give a worker new work again."""
        await self._workers.uncordon(request.node_id)
        return scheduler_pb2.UncordonWorkerResponse()

    async def _accept(self, job: job_pb2.Job) -> job_pb2.Job:
        conditions: list[Condition] = [Absent(keys.job(job.id))]
        operations: list[Operation] = [Write(keys.job(job.id), job.SerializeToString())]
        if job.idempotency_key:
            check_name("idempotency key", job.idempotency_key)
            reminder = keys.job_key(job.tenant, job.idempotency_key)
            conditions.append(Absent(reminder))
            operations.append(Write(reminder, job.id.encode()))
            if earlier := await self._state.get(reminder):
                return (await self._job(earlier.value.decode()))[0]
        if await self._state.commit(conditions, operations) is None:
            return await self._accept(job)  # the same key came twice at once: the first won
        await publish_event(self._bus, self._clock, self._node_id, event_pb2.JobSubmitted(job=job))
        return job

    async def _feed_states(
        self, job_id: str, merged: asyncio.Queue[scheduler_pb2.WatchJobResponse]
    ) -> None:
        async for change in self._state.watch(keys.job(job_id)):
            records = change.records if isinstance(change, Snapshot) else ()
            if isinstance(change, StatePut):
                records = (change.record,)
            for record in records:
                if record.key == keys.job(job_id):
                    job = job_pb2.Job.FromString(record.value)
                    await merged.put(scheduler_pb2.WatchJobResponse(job=job))

    async def _feed_progress(
        self, job_id: str, merged: asyncio.Queue[scheduler_pb2.WatchJobResponse]
    ) -> None:
        async for message in self._bus.subscribe_all(job_progress(job_id)):
            progress = job_pb2.JobProgress.FromString(message.payload)
            await merged.put(scheduler_pb2.WatchJobResponse(progress=progress))

    async def _deployment(self, name: str) -> deployment_pb2.Deployment:
        record = await self._state.get(keys.deployment(check_name("deployment", name)))
        if record is None:
            known = await self._all(keys.DEPLOYMENTS, deployment_pb2.Deployment)
            raise not_found("deployment", name, {d.spec.name for d in known})
        return deployment_pb2.Deployment.FromString(record.value)

    async def _job(self, job_id: str) -> tuple[job_pb2.Job, int]:
        record = await self._state.get(keys.job(check_name("job", job_id)))
        if record is None:
            raise NotFoundError(f"job {job_id!r} does not exist", hint="list the jobs")
        return job_pb2.Job.FromString(record.value), record.mod_revision

    async def _living_workers(self) -> list[node_pb2.Node]:
        nodes = await self._all(keys.NODES, node_pb2.Node)
        return [node for node in nodes if node.role == node_pb2.NODE_ROLE_WORKER]

    async def _statuses(self, tasks: list[task_pb2.Task]) -> list[task_pb2.TaskStatus]:
        ids = {(task.node_id, task.id) for task in tasks}
        statuses = await self._all(keys.TASK_STATUS, task_pb2.TaskStatus)
        return [status for status in statuses if (status.node_id, status.task_id) in ids]

    async def _all(self, prefix: str, kind: type[_MessageT]) -> list[_MessageT]:
        return [kind.FromString(r.value) for r in (await self._state.list(prefix)).records]

    async def _write(self, key: str, message: Message, revision: int) -> bool:
        """Write where nobody else has since `revision` (0: where there is nothing)."""
        condition = Unchanged(key, revision) if revision else Absent(key)
        value = message.SerializeToString()
        return await self._state.commit([condition], [Write(key, value)]) is not None


@contextlib.asynccontextmanager
async def _background(*feeds: Any) -> AsyncGenerator[None]:
    """Run `feeds` while the body runs. Their streams end by themselves only on errors."""
    tasks = [asyncio.create_task(feed) for feed in feeds]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, LeptonError):
                raise outcome
