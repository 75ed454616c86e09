"""Decisions about jobs: gang placement, replacement of lost ranks, publication, the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_scheduler.actions import (
    Action,
    PlaceGang,
    PlaceTask,
    RemoveTask,
    UpdateJob,
    UpdateTask,
)
from lepton_scheduler.cluster import ENDED, Cluster, job_of
from lepton_scheduler.placement import Rooms

__all__ = ["decide_jobs"]

# A rank that fails this often for no fault of the user's takes the job with it.
_MAX_FAILURES = 4
_BACK_OFF_S = 1.0  # doubles with each attempt
_LIGHTHOUSE = node_pb2.Resources()


def decide_jobs(now: float, cluster: Cluster, rooms: Rooms) -> Iterator[Action]:
    """Actions for all jobs, the most urgent first."""
    tasks = cluster.by_job()
    jobs = [
        _Job(now, cluster, rooms, job, tasks.get(job.id, []))
        for job in sorted(cluster.jobs.values(), key=_urgency)
    ]
    for job in jobs:
        yield from job.decide()
    # Only now: who waits for its first ranks goes before who would like more.
    for job in jobs:
        yield from job.grow()
    for task in list(cluster.tasks.values()):
        job_id = job_of(task)
        if job_id and job_id not in cluster.jobs:
            yield RemoveTask(task, "its job does not exist")


def _urgency(job: job_pb2.Job) -> tuple[int, int, str]:
    return (-job.spec.priority, job.created_at.ToNanoseconds(), job.id)


@dataclass
class _Job:
    now: float
    cluster: Cluster
    rooms: Rooms
    job: job_pb2.Job
    tasks: list[task_pb2.Task]

    def decide(self) -> Iterator[Action]:
        tasks = self.tasks
        if self.job.state in ENDED:
            for task in tasks:
                yield from self._remove(task, "its job has ended")
        elif self._over_time():
            yield self._ended(job_pb2.JOB_STATE_FAILED, "its time limit has passed")
        elif not tasks:
            yield from self._place_gang()
        else:
            yield from self._keep_going(tasks)

    def grow(self) -> Iterator[Action]:
        """Add a rank to a job that trains, while there is room and it has fewer than helps."""
        numbers = {task.trainer.rank for task in self.tasks if task.HasField("trainer")}
        full = len(numbers) >= self.job.spec.workers.max
        if full or self.job.state != job_pb2.JOB_STATE_RUNNING or self._trained(self.tasks):
            return
        load = Counter(task.node_id for task in self.tasks)
        node_id = self.rooms.choose(self.job.spec.resources, load)
        if node_id is not None:
            self.rooms.take(node_id, self.job.spec.resources)
            rank = min(set(range(self.job.spec.workers.max)) - numbers)
            yield PlaceTask(self._trainer(rank, node_id), "there is room for one more")

    def _over_time(self) -> bool:
        limit, started = self.job.spec.time_limit_s, self.job.started_at.ToNanoseconds() / 1e9
        return bool(limit and started and self.now > started + limit)

    def _place_gang(self) -> Iterator[Action]:
        """Place all ranks that fit, or none when they are fewer than the job needs."""
        nodes = self._gang_nodes()
        wanted = self.job.spec.workers
        if len(nodes) < wanted.min:
            reason = f"waits for room: {len(nodes)} of {wanted.min} ranks fit now"
            if self.job.reason != reason:
                yield self._moved(job_pb2.JOB_STATE_QUEUED, reason)
            for node_id in nodes:
                self.rooms.give_back(node_id, self.job.spec.resources)
            return
        lighthouse = self._lighthouse(self.rooms.choose(_LIGHTHOUSE, {}) or nodes[0])
        ranks = [self._trainer(rank, node_id) for rank, node_id in enumerate(nodes)]
        placed = self._moved(job_pb2.JOB_STATE_PLACED, f"{len(nodes)} ranks have a node")
        yield PlaceGang(placed.job, (lighthouse, *ranks))

    def _gang_nodes(self) -> list[str]:
        nodes: list[str] = []
        while len(nodes) < self.job.spec.workers.max:
            node_id = self.rooms.choose(self.job.spec.resources, Counter(nodes))
            if node_id is None:
                break
            self.rooms.take(node_id, self.job.spec.resources)
            nodes.append(node_id)
        return nodes

    def _keep_going(self, tasks: list[task_pb2.Task]) -> Iterator[Action]:
        statuses = [self.cluster.status_of(task) for task in tasks]
        done = next((s for s in statuses if s.state == task_pb2.TASK_STATE_SUCCEEDED), None)
        fatal = next((s for t, s in zip(tasks, statuses, strict=True) if _is_fatal(t, s)), None)
        if done:
            yield self._ended(job_pb2.JOB_STATE_SUCCEEDED, "trained", done.result)
        elif fatal:
            yield self._ended(job_pb2.JOB_STATE_FAILED, fatal.reason or "a rank failed")
        else:
            yield from self._replace_lost(tasks)
            yield from self._choose_publisher(tasks)
            yield from self._follow(tasks)

    def _replace_lost(self, tasks: list[task_pb2.Task]) -> Iterator[Action]:
        trained = bool(self._trained(tasks))
        for task in tasks:
            failed = self._state(task) == task_pb2.TASK_STATE_FAILED
            if not (failed or self.cluster.is_lost(task)):
                continue
            if trained and task.HasField("trainer"):  # the result is there: no rank is missed
                yield from self._remove(task, "lost after the training was done")
            elif self.cluster.is_lost(task):
                yield from self._replace(task, "its node was lost")
            elif self._may_try_again(task):
                yield from self._replace(task, "it failed")

    def _may_try_again(self, task: task_pb2.Task) -> bool:
        failed_at = self.cluster.status_of(task).updated_at.ToNanoseconds() / 1e9
        return self.now >= failed_at + _BACK_OFF_S * 2 ** (task.attempt - 1)

    def _replace(self, task: task_pb2.Task, reason: str) -> Iterator[Action]:
        if not self.cluster.is_lost(task):
            self.rooms.give_back(task.node_id, task.resources)
        load = Counter(t.node_id for t in self.tasks if t.id != task.id)
        node_id = self.rooms.choose(task.resources, load)
        if node_id is None:
            if not self.cluster.is_lost(task):
                self.rooms.take(task.node_id, task.resources)
            return  # its record stays, so that the attempt is not forgotten
        self.rooms.take(node_id, task.resources)
        fresh = task_pb2.Task()
        fresh.CopyFrom(task)
        fresh.attempt += 1
        if fresh.HasField("trainer"):
            fresh.trainer.publish = False  # the new rank has yet to train
        self._put_on(fresh, node_id)
        yield PlaceTask(fresh, reason, replaces=task)

    def _choose_publisher(self, tasks: list[task_pb2.Task]) -> Iterator[Action]:
        trained = self._trained(tasks)
        if trained and not any(task.trainer.publish for task in trained):
            publisher = task_pb2.Task()
            publisher.CopyFrom(trained[0])
            publisher.trainer.publish = True
            yield UpdateTask(publisher, "trained; publishes for all")

    def _follow(self, tasks: list[task_pb2.Task]) -> Iterator[Action]:
        """Move the job's state along with its ranks'."""
        ranks = [t for t in tasks if t.WhichOneof("work") == "trainer"]
        up = sum(
            self._state(t) in (task_pb2.TASK_STATE_RUNNING, task_pb2.TASK_STATE_TRAINED)
            and not self.cluster.is_lost(t)
            for t in ranks
        )
        if up == len(ranks):
            state, reason = job_pb2.JOB_STATE_RUNNING, f"{up} ranks train"
        elif up:
            state, reason = job_pb2.JOB_STATE_RESIZING, f"{up} of {len(ranks)} ranks train"
        elif any(self._state(t) == task_pb2.TASK_STATE_STARTING for t in ranks):
            state, reason = job_pb2.JOB_STATE_STARTING, "ranks fetch data and start"
        else:
            return
        # Ranks that start one after the other are no resize.
        if state == job_pb2.JOB_STATE_RESIZING and self.job.state in (
            job_pb2.JOB_STATE_PLACED,
            job_pb2.JOB_STATE_STARTING,
        ):
            return
        if (state, reason) != (self.job.state, self.job.reason):
            yield self._moved(state, reason)

    def _remove(self, task: task_pb2.Task, reason: str) -> Iterator[Action]:
        if not self.cluster.is_lost(task):
            self.rooms.give_back(task.node_id, task.resources)
        yield RemoveTask(task, reason)

    def _trained(self, tasks: list[task_pb2.Task]) -> list[task_pb2.Task]:
        """Ranks that hold the final weights and still live, in order."""
        return [
            t
            for t in tasks
            if self._state(t) == task_pb2.TASK_STATE_TRAINED and not self.cluster.is_lost(t)
        ]

    def _state(self, task: task_pb2.Task) -> task_pb2.TaskState:
        return self.cluster.status_of(task).state

    def _lighthouse(self, node_id: str) -> task_pb2.Task:
        task = task_pb2.Task(id=_lighthouse_id(self.job), attempt=1)
        task.lighthouse.job_id = self.job.id
        task.lighthouse.min_ranks = self.job.spec.workers.min
        return self._put_on(task, node_id)

    def _trainer(self, rank: int, node_id: str) -> task_pb2.Task:
        task = task_pb2.Task(
            id=f"{self.job.id}-r{rank}", attempt=1, resources=self.job.spec.resources
        )
        task.trainer.job_id = self.job.id
        task.trainer.rank = rank
        task.trainer.spec.CopyFrom(self.job.spec.train)
        task.trainer.lighthouse_task_id = _lighthouse_id(self.job)
        task.trainer.min_ranks = self.job.spec.workers.min
        return self._put_on(task, node_id)

    def _put_on(self, task: task_pb2.Task, node_id: str) -> task_pb2.Task:
        task.node_id = node_id
        task.node_incarnation = self.cluster.workers[node_id].incarnation
        task.placed_at.FromNanoseconds(int(self.now * 1e9))
        return task

    def _moved(self, state: job_pb2.JobState, reason: str) -> UpdateJob:
        job = job_pb2.Job()
        job.CopyFrom(self.job)
        job.state = state
        job.reason = reason
        if state == job_pb2.JOB_STATE_RUNNING and not job.HasField("started_at"):
            job.started_at.FromNanoseconds(int(self.now * 1e9))
        return UpdateJob(job)

    def _ended(
        self,
        state: job_pb2.JobState,
        reason: str,
        result: job_pb2.JobResult | None = None,
    ) -> UpdateJob:
        update = self._moved(state, reason)
        update.job.finished_at.FromNanoseconds(int(self.now * 1e9))
        if result is not None:
            update.job.result.CopyFrom(result)
        return update


def _lighthouse_id(job: job_pb2.Job) -> str:
    return f"{job.id}-lighthouse"


def _is_fatal(task: task_pb2.Task, status: task_pb2.TaskStatus) -> bool:
    failed = status.state == task_pb2.TASK_STATE_FAILED
    return failed and (status.user_error or task.attempt >= _MAX_FAILURES)
