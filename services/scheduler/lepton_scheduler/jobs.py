"""Decisions about jobs: gang placement, replacement of lost ranks, publication, the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

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
from lepton_scheduler.placement import Claim, Rooms

__all__ = ["decide_jobs"]

# A rank that fails this often for no fault of the user's takes the job with it.
_MAX_FAILURES = 4
_BACK_OFF_S = 1.0  # doubles with each attempt
_LIGHTHOUSE = node_pb2.Resources()


def decide_jobs(
    now: float, cluster: Cluster, rooms: Rooms, unplaced: Iterable[Claim] = ()
) -> Iterator[Action]:
    """Actions for all jobs, the most urgent first.

    Args:
        now: Seconds since the epoch.
        cluster: What is wanted and what is there.
        rooms: What is free, kept up to date.
        unplaced: Replicas that found no room: serving borrows it from training.
    """
    tasks = cluster.by_job()
    jobs = [
        _Job(now, cluster, rooms, job, tasks.get(job.id, []))
        for job in sorted(cluster.jobs.values(), key=_urgency)
    ]
    for claim in unplaced:
        yield from _lend(claim, rooms, jobs)
    for job in jobs:
        if job.evicted:
            continue
        yield from job.decide()
        yield from job.preempt(jobs)
    # Only now: who waits for its first ranks goes before who would like more.
    for job in jobs:
        if not job.evicted:
            yield from job.grow()
    for task in list(cluster.tasks.values()):
        job_id = job_of(task)
        if job_id and job_id not in cluster.jobs:
            yield RemoveTask(task, "its job does not exist")


def _lend(claim: Claim, rooms: Rooms, jobs: list[_Job]) -> Iterator[Action]:
    """Take one rank, from a job that can do without, where that makes room for a replica."""
    for victim in (task for job in reversed(jobs) for task in job.spare()):
        rooms.give_back(victim.node_id, victim.resources)
        if victim.node_id not in claim.taken and rooms.fits(victim.node_id, claim.need):
            rooms.take(victim.node_id, claim.need)
            yield from _dropped(jobs, victim, "serving needs its place")
            return
        rooms.take(victim.node_id, victim.resources)


def _dropped(jobs: list[_Job], victim: task_pb2.Task, reason: str) -> Iterator[Action]:
    """Remove a rank of which the room is counted as free already."""
    for job in jobs:
        if victim in job.tasks:
            job.tasks.remove(victim)
            yield RemoveTask(victim, reason)


def _urgency(job: job_pb2.Job) -> tuple[int, int, str]:
    return (-job.spec.priority, job.created_at.ToNanoseconds(), job.id)


@dataclass
class _Job:
    now: float
    cluster: Cluster
    rooms: Rooms
    job: job_pb2.Job
    tasks: list[task_pb2.Task]
    # In this very decision:
    waits: bool = False
    evicted: bool = False

    def decide(self) -> Iterator[Action]:
        tasks = self.tasks
        if self.job.state in ENDED:
            for task in tasks:
                yield from self._remove(task, "its job has ended")
        elif self.job.state == job_pb2.JOB_STATE_PREEMPTED and tasks:
            for task in tasks:
                yield from self._remove(task, "its job was preempted")
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

    def spare(self) -> list[task_pb2.Task]:
        """Ranks that the job can do without, the last one first; its minimum stays."""
        return self._ranks_to_lose()[: self.job.spec.workers.min - 1 : -1]

    def preempt(self, jobs: list[_Job]) -> Iterator[Action]:
        """Make room for a job that waits: others shrink to their minimum, then are evicted.

        What is made free stays counted as used: it is this job's, from the next decision on.
        """
        if not self.waits:
            return
        priority = self.job.spec.priority
        lesser = [
            job
            for job in takewhile(lambda job: job.job.spec.priority < priority, reversed(jobs))
            if job.tasks
        ]
        victims: list[task_pb2.Task] = []
        for victim in self._in_order(lesser):
            self.rooms.give_back(victim.node_id, victim.resources)
            victims.append(victim)
            if self._takes_room():
                reason = f"job {self.job.id} is more urgent"
                for job in lesser:
                    yield from job.give_up([v for v in victims if v in job.tasks], reason)
                return
        for victim in victims:
            self.rooms.take(victim.node_id, victim.resources)

    def give_up(self, ranks: list[task_pb2.Task], reason: str) -> Iterator[Action]:
        """Lose ranks of which the room is counted as free already: some, or with them all."""
        if ranks and len(self._living_ranks()) - len(ranks) < self.job.spec.workers.min:
            self.evicted = True
            yield self._moved(job_pb2.JOB_STATE_PREEMPTED, reason)
            ranks = list(self.tasks)
        for task in ranks:
            self.tasks.remove(task)
            yield RemoveTask(task, reason)

    @staticmethod
    def _in_order(lesser: list[_Job]) -> Iterator[task_pb2.Task]:
        """Ranks in the order in which they are taken away: nobody is evicted before all shrink."""
        spare = [task for job in lesser for task in job.spare()]
        yield from spare
        for job in lesser:
            yield from (task for task in job._ranks_to_lose() if task not in spare)

    def _takes_room(self) -> bool:
        """Whether the least that the job needs fits; then it counts as used."""
        nodes = self._gang_nodes(self.job.spec.workers.min)
        if len(nodes) == self.job.spec.workers.min:
            return True
        for node_id in nodes:
            self.rooms.give_back(node_id, self.job.spec.resources)
        return False

    def _ranks_to_lose(self) -> list[task_pb2.Task]:
        """Ranks that another job or a replica may displace: not those that are about to end."""
        leaves = self.job.state in (*ENDED, job_pb2.JOB_STATE_PREEMPTED)
        return [] if leaves or self._trained(self.tasks) else self._living_ranks()

    def _living_ranks(self) -> list[task_pb2.Task]:
        return [t for t in self.tasks if t.HasField("trainer") and not self.cluster.is_lost(t)]

    def _over_time(self) -> bool:
        limit, started = self.job.spec.time_limit_s, self.job.started_at.ToNanoseconds() / 1e9
        return bool(limit and started and self.now > started + limit)

    def _place_gang(self) -> Iterator[Action]:
        """Place all ranks that fit, or none when they are fewer than the job needs."""
        nodes = self._gang_nodes(self.job.spec.workers.max)
        wanted = self.job.spec.workers
        if len(nodes) < wanted.min:
            self.waits = True
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

    def _gang_nodes(self, count: int) -> list[str]:
        """Nodes for at most `count` ranks, of which the room counts as used."""
        nodes: list[str] = []
        while len(nodes) < count:
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
            missed = list(self._replace_lost(tasks))
            yield from missed or self._move_off(tasks)
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

    def _move_off(self, tasks: list[task_pb2.Task]) -> Iterator[Action]:
        """Move what is on nodes to be emptied: one at a time, so that a peer has its state."""
        # The state lags behind a decision by one.
        steady = self.job.state == job_pb2.JOB_STATE_RUNNING and all(map(self._is_up, tasks))
        if not steady or self._trained(tasks):
            return
        leaving = [task for task in tasks if self.cluster.must_leave(task)]
        if not leaving:
            return
        task = leaving[-1]  # the lighthouse comes first, and goes last
        moved = list(self._replace(task, "its node is being drained"))
        yield from moved
        if not moved and task in self.spare():
            yield from self._remove(task, "its node is being drained")

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
        ranks = [t for t in tasks if t.HasField("trainer")]
        up = sum(map(self._is_up, ranks))
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

    def _is_up(self, task: task_pb2.Task) -> bool:
        up = (task_pb2.TASK_STATE_RUNNING, task_pb2.TASK_STATE_TRAINED)
        return self._state(task) in up and not self.cluster.is_lost(task)

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
