"""Decisions about a job whose ranks come and go one by one, and of which one publishes for all."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from lepton_ai.proto.v1 import job_pb2, task_pb2
from lepton_scheduler.actions import Action, PlaceTask, UpdateTask
from lepton_scheduler.attempts import again, is_spent, may_follow
from lepton_scheduler.cluster import rank_number
from lepton_scheduler.gang import Gang

__all__ = ["Elastic", "rank_of"]

# A rank that has been reported as stalled for this long is replaced where others take steps.
_STALLED_S = 10.0
# Where none does, they may be slow rather than stuck.
_ALL_STALLED_S = 300.0


class Elastic(Gang):
    """Ranks that replace each other. Each reports `TRAINED` when nothing is left to do."""

    does: ClassVar[str]
    """What ranks do, for people, such as "train"."""
    done: ClassVar[str]
    """What is said of a job whose result is recorded."""

    @abstractmethod
    def new_rank(self, number: int, node_id: str) -> task_pb2.Task:
        """The first attempt at a rank."""

    def outlives(self, lost: int) -> bool:
        """It does with as many ranks as its minimum."""
        return len(self.living_ranks()) - lost >= self.job.spec.workers.min

    def grow(self) -> Iterator[Action]:
        """Add a rank to a job that trains, while there is room and it has fewer than helps."""
        numbers = {rank_number(task) for task in self.ranks()}
        full = len(numbers) >= self.job.spec.workers.max
        if full or self.job.state != job_pb2.JOB_STATE_RUNNING or self._trained():
            return
        load = Counter(task.node_id for task in self.tasks)
        node_id = self.choose(load)
        if node_id is not None:
            self.rooms.take(node_id, self.job.spec.resources)
            rank = min(set(range(self.job.spec.workers.max)) - numbers)
            yield PlaceTask(self.new_rank(rank, node_id), "there is room for one more")

    def spare(self) -> list[task_pb2.Task]:
        """Ranks that the job can do without, the last one first; its minimum stays."""
        return self.ranks_to_lose()[: self.job.spec.workers.min - 1 : -1]

    def keep_going(self) -> Iterator[Action]:
        """Replace what is lost, let one rank publish, and see when it ends."""
        statuses = [self.cluster.status_of(task) for task in self.tasks]
        done = next((s for s in statuses if s.state == task_pb2.TASK_STATE_SUCCEEDED), None)
        fatal = next((reason for task in self.tasks if (reason := self._fatal(task))), None)
        if done:
            yield self.ended(job_pb2.JOB_STATE_SUCCEEDED, self.done, done.result)
        elif fatal:
            yield self.ended(job_pb2.JOB_STATE_FAILED, fatal)
        else:
            missed = list(self._replace_lost())
            yield from missed or self._move_off()
            yield from self._choose_publisher()
            yield from self._follow_ranks()

    def _replace_lost(self) -> Iterator[Action]:
        trained = bool(self._trained())
        for task in self.tasks:
            complaint, lost = self._complaint(task), self.cluster.is_lost(task)
            if not (complaint or lost):
                continue
            if trained and not task.HasField("lighthouse"):  # nothing is left for it to do
                yield from self.remove(task, "lost after all was done")
            elif may_follow(task, self.now, None if lost else self._said_at(task)):
                yield from self._replace(task, complaint or "its node was lost")

    def _complaint(self, task: task_pb2.Task) -> str:
        """What is wrong with a task by itself; empty where nothing is, or its node is gone."""
        if self.cluster.is_lost(task):
            return ""
        if self.state(task) == task_pb2.TASK_STATE_FAILED:
            return self.cluster.status_of(task).reason or "it failed"
        return "it stalled" if self._is_stuck(task) else ""

    def _fatal(self, task: task_pb2.Task) -> str:
        """Why a task takes the job with it; empty where it does not."""
        hopeless = self.cluster.status_of(task).user_error or is_spent(task)
        return self._complaint(task) if hopeless else ""

    def _is_stuck(self, task: task_pb2.Task) -> bool:
        """Whether a rank has stalled for so long that it is given up."""
        if self.state(task) != task_pb2.TASK_STATE_STALLED:
            return False
        others = any(map(self._is_up, self.ranks()))
        patience_s = self.job.spec.stall_limit_s or _ALL_STALLED_S
        return self.now >= self._said_at(task) + (_STALLED_S if others else patience_s)

    def _said_at(self, task: task_pb2.Task) -> float:
        return self.cluster.status_of(task).updated_at.ToNanoseconds() / 1e9

    def _move_off(self) -> Iterator[Action]:
        """Move what is on nodes to be emptied: one at a time, so that a peer has its state."""
        # The state lags behind a decision by one.
        steady = self.job.state == job_pb2.JOB_STATE_RUNNING and all(map(self._is_up, self.tasks))
        if not steady or self._trained():
            return
        leaving = [task for task in self.tasks if self.cluster.must_leave(task)]
        if not leaving:
            return
        task = leaving[-1]  # the lighthouse comes first, and goes last
        moved = list(self._replace(task, "its node is being drained"))
        yield from moved
        if not moved and task in self.spare():
            yield from self.remove(task, "its node is being drained")

    def _replace(self, task: task_pb2.Task, reason: str) -> Iterator[Action]:
        lost = self.cluster.is_lost(task)
        if not lost:
            self.rooms.give_back(task.node_id, task.resources)
        load = Counter(t.node_id for t in self.tasks if t.id != task.id)
        labels = {} if task.HasField("lighthouse") else self.job.spec.labels
        node_id = self.rooms.choose(task.resources, load, labels)
        if node_id is None:
            if not lost:
                self.rooms.take(task.node_id, task.resources)
            return  # its record stays, so that the attempt is not forgotten
        self.rooms.take(node_id, task.resources)
        fresh = again(task, self.now, lost=lost, failed=bool(self._complaint(task)))
        if not fresh.HasField("lighthouse"):
            rank_of(fresh).publish = False  # the new rank has to get there first
        self.put_on(fresh, node_id)
        yield PlaceTask(fresh, reason, replaces=task)

    def _choose_publisher(self) -> Iterator[Action]:
        trained = self._trained()
        if trained and not any(rank_of(task).publish for task in trained):
            publisher = task_pb2.Task()
            publisher.CopyFrom(trained[0])
            rank_of(publisher).publish = True
            yield UpdateTask(publisher, "all is done; it publishes for all")

    def _follow_ranks(self) -> Iterator[Action]:
        """Move the job's state along with its ranks'."""
        ranks = self.ranks()
        up = sum(map(self._is_up, ranks))
        stalled = self.of_state(task_pb2.TASK_STATE_STALLED)
        if up == len(ranks):
            yield from self.follow(job_pb2.JOB_STATE_RUNNING, f"{up} ranks {self.does}")
        elif (up or stalled) and self.job.state not in (
            # Ranks that start one after the other are no resize.
            job_pb2.JOB_STATE_PLACED,
            job_pb2.JOB_STATE_STARTING,
        ):
            reason = f"{up} of {len(ranks)} ranks {self.does}"
            reason += "".join(f"; rank {rank_number(t)} on {t.node_id} stalls" for t in stalled)
            yield from self.follow(job_pb2.JOB_STATE_RESIZING, reason)
        elif not up and any(self.state(t) == task_pb2.TASK_STATE_STARTING for t in ranks):
            yield from self.follow(job_pb2.JOB_STATE_STARTING, "ranks fetch data and start")

    def _trained(self) -> list[task_pb2.Task]:
        """Ranks that have nothing left to do and still live, in order."""
        return self.of_state(task_pb2.TASK_STATE_TRAINED)

    def _is_up(self, task: task_pb2.Task) -> bool:
        up = (task_pb2.TASK_STATE_RUNNING, task_pb2.TASK_STATE_TRAINED)
        return self.state(task) in up and not self.cluster.is_lost(task)


def rank_of(task: task_pb2.Task) -> task_pb2.TrainerTask | task_pb2.ScoreTask:
    """What a rank of such a job is told to do."""
    return task.score if task.HasField("score") else task.trainer
