"""What every kind of job has in common: ranks placed together, that may have to make room."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lepton_ai.proto.v1 import job_pb2, task_pb2
from lepton_scheduler.actions import Action, PlaceGang, RemoveTask, UpdateJob
from lepton_scheduler.cluster import ENDED, Cluster
from lepton_scheduler.placement import Rooms
from lepton_scheduler.shares import Shares
from lepton_scheduler.transitions import moved

__all__ = ["Gang"]

_PATIENCE_S = 60.0


@dataclass
class Gang(ABC):
    """One job and its tasks, in one decision."""

    now: float
    cluster: Cluster
    rooms: Rooms
    job: job_pb2.Job
    tasks: list[task_pb2.Task]
    # In this very decision:
    waits: bool = False
    evicted: bool = False

    @abstractmethod
    def keep_going(self) -> Iterator[Action]:
        """Look after a job that has tasks."""

    @abstractmethod
    def members(self, nodes: Sequence[str]) -> tuple[task_pb2.Task, ...]:
        """All tasks of a job of which each of `nodes` runs a rank."""

    @abstractmethod
    def outlives(self, lost: int) -> bool:
        """Whether the job goes on when it gives up so many of its ranks."""

    def decide(self) -> Iterator[Action]:
        """What becomes of the job now."""
        if self.job.state in ENDED:
            yield from self.remove_all("its job has ended")
        elif self.job.state == job_pb2.JOB_STATE_PREEMPTED and self.tasks:
            yield from self.remove_all("its job was preempted")
        elif self._over_time():
            yield self.ended(job_pb2.JOB_STATE_FAILED, "its time limit has passed")
        elif not self.tasks:
            yield from self._place_gang()
        else:
            yield from self.keep_going()

    def grow(self) -> Iterator[Action]:
        """Add a rank where that helps and there is room."""
        yield from ()

    def spare(self) -> list[task_pb2.Task]:
        """Ranks that the job can do without, the one it misses least first."""
        return []

    def preempt(self, jobs: Sequence[Gang], shares: Shares) -> Iterator[Action]:
        """Make room for a job that waits: others shrink to their minimum, then are evicted.

        Equals whose tenant has the larger share shrink too, but are not evicted. What is made free
        stays counted as used: it is this job's, from the next decision on.
        """
        if not self.waits:
            return
        priority, share = self.job.spec.priority, shares.of(self.job.tenant)
        others = [job for job in reversed(jobs) if job.tasks]
        lesser = [job for job in others if job.job.spec.priority < priority]
        richer = [
            job
            for job in others
            if job.job.spec.priority == priority and shares.of(job.job.tenant) > share
        ]
        victims: list[task_pb2.Task] = []
        for victim in _in_order(lesser, richer):
            self.rooms.give_back(victim.node_id, victim.resources)
            victims.append(victim)
            if self._takes_room():
                for job in lesser:
                    mine = [v for v in victims if v in job.tasks]
                    yield from job.give_up(mine, f"job {self.job.id} is more urgent")
                for job in richer:
                    mine = [v for v in victims if v in job.tasks]
                    yield from job.give_up(mine, f"job {self.job.id} waits, of another tenant")
                return
        for victim in victims:
            self.rooms.take(victim.node_id, victim.resources)

    @property
    def is_impatient(self) -> bool:
        """Whether the job has waited for so long that nobody of its priority goes before it."""
        if self.tasks or self.job.state in ENDED:
            return False
        since = self.job.history[-1].at if self.job.history else self.job.created_at
        return self.now - since.ToNanoseconds() / 1e9 > _PATIENCE_S

    def reserve(self) -> bool:
        """Keep others off the nodes that can be free for this job first, so that they will be.

        Returns:
            Whether the cluster has nodes enough for it.
        """
        wanted = self.job.spec.workers.min
        nodes = self.rooms.soonest(self.job.spec.resources, wanted, self.job.spec.labels)
        for node_id in nodes:
            self.rooms.close(node_id)
        return bool(nodes)

    def give_up(self, ranks: list[task_pb2.Task], reason: str) -> Iterator[Action]:
        """Lose ranks of which the room is counted as free already: some, or with them all."""
        if ranks and not self.outlives(len(ranks)):
            self.evicted = True
            yield self.moved(job_pb2.JOB_STATE_PREEMPTED, reason)
            ranks = list(self.tasks)
        for task in ranks:
            self.tasks.remove(task)
            yield RemoveTask(task, reason)

    def ranks_to_lose(self) -> list[task_pb2.Task]:
        """Ranks that another job or a replica may displace: not those that are about to end."""
        leaves = self.job.state in (*ENDED, job_pb2.JOB_STATE_PREEMPTED)
        return [] if leaves or self.of_state(task_pb2.TASK_STATE_TRAINED) else self.living_ranks()

    def ranks(self) -> list[task_pb2.Task]:
        """The job's tasks without its lighthouse, in order."""
        return [task for task in self.tasks if not task.HasField("lighthouse")]

    def living_ranks(self) -> list[task_pb2.Task]:
        """Ranks whose node is there."""
        return [task for task in self.ranks() if not self.cluster.is_lost(task)]

    def of_state(self, state: task_pb2.TaskState) -> list[task_pb2.Task]:
        """Living ranks of a state, in order."""
        return [task for task in self.living_ranks() if self.state(task) == state]

    def state(self, task: task_pb2.Task) -> task_pb2.TaskState:
        """What its worker said last of a task."""
        return self.cluster.status_of(task).state

    def put_on(self, task: task_pb2.Task, node_id: str) -> task_pb2.Task:
        """Address a task to a node as it is now."""
        task.node_id = node_id
        task.node_incarnation = self.cluster.workers[node_id].incarnation
        task.placed_at.FromNanoseconds(int(self.now * 1e9))
        return task

    def remove(self, task: task_pb2.Task, reason: str) -> Iterator[Action]:
        """Remove a task; its room is free from now on."""
        if not self.cluster.is_lost(task):
            self.rooms.give_back(task.node_id, task.resources)
        yield RemoveTask(task, reason)

    def remove_all(self, reason: str) -> Iterator[Action]:
        """Remove every task."""
        for task in self.tasks:
            yield from self.remove(task, reason)

    def moved(self, state: job_pb2.JobState, reason: str) -> UpdateJob:
        """The job in another state. What comes after an eviction is another attempt."""
        anew = self.job.state == job_pb2.JOB_STATE_PREEMPTED and state not in ENDED
        return UpdateJob(moved(self.job, state, reason, self.now, anew=anew))

    def follow(self, state: job_pb2.JobState, reason: str) -> Iterator[Action]:
        """Move the job's state along with its ranks', where that is news."""
        if (state, reason) != (self.job.state, self.job.reason):
            yield self.moved(state, reason)

    def ended(
        self,
        state: job_pb2.JobState,
        reason: str,
        result: job_pb2.JobResult | None = None,
    ) -> UpdateJob:
        """The job at its end."""
        update = self.moved(state, reason)
        if result is not None:
            update.job.result.CopyFrom(result)
        return update

    def _over_time(self) -> bool:
        limit, started = self.job.spec.time_limit_s, self.job.started_at.ToNanoseconds() / 1e9
        return bool(limit and started and self.now > started + limit)

    def _place_gang(self) -> Iterator[Action]:
        """Place all ranks that fit, or none when they are fewer than the job needs."""
        nodes = self.room_for(self.job.spec.workers.max)
        wanted = self.job.spec.workers
        if len(nodes) < wanted.min:
            self.waits = True
            reason = f"waits for room: {len(nodes)} of {wanted.min} ranks fit now"
            if self.job.reason != reason:
                yield self.moved(job_pb2.JOB_STATE_QUEUED, reason)
            self.leave_room(nodes)
            return
        # From here on: the ranks are those of its next attempt, if this is one.
        self.job = self.moved(job_pb2.JOB_STATE_PLACED, f"{len(nodes)} ranks have a node").job
        yield PlaceGang(self.job, self.members(nodes))

    def room_for(self, count: int) -> list[str]:
        """Nodes for at most `count` ranks, of which the room counts as used."""
        nodes: list[str] = []
        while len(nodes) < count:
            node_id = self.choose(Counter(nodes))
            if node_id is None:
                break
            self.rooms.take(node_id, self.job.spec.resources)
            nodes.append(node_id)
        return nodes

    def choose(self, load: Mapping[str, int]) -> str | None:
        """A node for one more rank, where each node has so many of the job's tasks."""
        return self.rooms.choose(self.job.spec.resources, load, self.job.spec.labels)

    def leave_room(self, nodes: Sequence[str]) -> None:
        """Count what `room_for` took as free again."""
        for node_id in nodes:
            self.rooms.give_back(node_id, self.job.spec.resources)

    def _takes_room(self) -> bool:
        """Whether the least that the job needs fits; then it counts as used."""
        nodes = self.room_for(self.job.spec.workers.min)
        if len(nodes) == self.job.spec.workers.min:
            return True
        self.leave_room(nodes)
        return False


def _in_order(lesser: Sequence[Gang], richer: Sequence[Gang]) -> Iterator[task_pb2.Task]:
    """Ranks in the order in which they are taken away: nobody is evicted before all shrink."""
    spare = [task for job in (*lesser, *richer) for task in job.spare()]
    yield from spare
    for job in lesser:
        yield from (task for task in job.ranks_to_lose() if task not in spare)
