"""Decisions about a job that trains a declared model: its ranks come and go one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_scheduler.actions import Action, PlaceTask, UpdateTask
from lepton_scheduler.gang import MAX_FAILURES, Gang, back_off_s

__all__ = ["Training"]

_LIGHTHOUSE = node_pb2.Resources()


class Training(Gang):
    """A training run: a lighthouse, and ranks that replace each other."""

    def members(self, nodes: Sequence[str]) -> tuple[task_pb2.Task, ...]:
        """The lighthouse and the ranks."""
        lighthouse = self._lighthouse(self.rooms.choose(_LIGHTHOUSE, {}) or nodes[0])
        return lighthouse, *(self._trainer(rank, node_id) for rank, node_id in enumerate(nodes))

    def outlives(self, lost: int) -> bool:
        """It does with as many ranks as its minimum."""
        return len(self.living_ranks()) - lost >= self.job.spec.workers.min

    def grow(self) -> Iterator[Action]:
        """Add a rank to a job that trains, while there is room and it has fewer than helps."""
        numbers = {task.trainer.rank for task in self.ranks()}
        full = len(numbers) >= self.job.spec.workers.max
        if full or self.job.state != job_pb2.JOB_STATE_RUNNING or self._trained():
            return
        load = Counter(task.node_id for task in self.tasks)
        node_id = self.rooms.choose(self.job.spec.resources, load)
        if node_id is not None:
            self.rooms.take(node_id, self.job.spec.resources)
            rank = min(set(range(self.job.spec.workers.max)) - numbers)
            yield PlaceTask(self._trainer(rank, node_id), "there is room for one more")

    def spare(self) -> list[task_pb2.Task]:
        """Ranks that the job can do without, the last one first; its minimum stays."""
        return self.ranks_to_lose()[: self.job.spec.workers.min - 1 : -1]

    def keep_going(self) -> Iterator[Action]:
        """Replace what is lost, let one rank publish, and see when it ends."""
        statuses = [self.cluster.status_of(task) for task in self.tasks]
        done = next((s for s in statuses if s.state == task_pb2.TASK_STATE_SUCCEEDED), None)
        pairs = zip(self.tasks, statuses, strict=True)
        fatal = next((status for task, status in pairs if _is_fatal(task, status)), None)
        if done:
            yield self.ended(job_pb2.JOB_STATE_SUCCEEDED, "trained", done.result)
        elif fatal:
            yield self.ended(job_pb2.JOB_STATE_FAILED, fatal.reason or "a rank failed")
        else:
            missed = list(self._replace_lost())
            yield from missed or self._move_off()
            yield from self._choose_publisher()
            yield from self._follow_ranks()

    def _replace_lost(self) -> Iterator[Action]:
        trained = bool(self._trained())
        for task in self.tasks:
            failed = self.state(task) == task_pb2.TASK_STATE_FAILED
            if not (failed or self.cluster.is_lost(task)):
                continue
            if trained and task.HasField("trainer"):  # the result is there: no rank is missed
                yield from self.remove(task, "lost after the training was done")
            elif self.cluster.is_lost(task):
                yield from self._replace(task, "its node was lost")
            elif self._may_try_again(task):
                yield from self._replace(task, "it failed")

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

    def _may_try_again(self, task: task_pb2.Task) -> bool:
        failed_at = self.cluster.status_of(task).updated_at.ToNanoseconds() / 1e9
        return self.now >= failed_at + back_off_s(task.attempt)

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
        self.put_on(fresh, node_id)
        yield PlaceTask(fresh, reason, replaces=task)

    def _choose_publisher(self) -> Iterator[Action]:
        trained = self._trained()
        if trained and not any(task.trainer.publish for task in trained):
            publisher = task_pb2.Task()
            publisher.CopyFrom(trained[0])
            publisher.trainer.publish = True
            yield UpdateTask(publisher, "trained; publishes for all")

    def _follow_ranks(self) -> Iterator[Action]:
        """Move the job's state along with its ranks'."""
        ranks = self.ranks()
        up = sum(map(self._is_up, ranks))
        if up == len(ranks):
            yield from self.follow(job_pb2.JOB_STATE_RUNNING, f"{up} ranks train")
        elif up and self.job.state not in (
            # Ranks that start one after the other are no resize.
            job_pb2.JOB_STATE_PLACED,
            job_pb2.JOB_STATE_STARTING,
        ):
            reason = f"{up} of {len(ranks)} ranks train"
            yield from self.follow(job_pb2.JOB_STATE_RESIZING, reason)
        elif not up and any(self.state(t) == task_pb2.TASK_STATE_STARTING for t in ranks):
            yield from self.follow(job_pb2.JOB_STATE_STARTING, "ranks fetch data and start")

    def _trained(self) -> list[task_pb2.Task]:
        """Ranks that hold the final weights and still live, in order."""
        return self.of_state(task_pb2.TASK_STATE_TRAINED)

    def _is_up(self, task: task_pb2.Task) -> bool:
        up = (task_pb2.TASK_STATE_RUNNING, task_pb2.TASK_STATE_TRAINED)
        return self.state(task) in up and not self.cluster.is_lost(task)

    def _lighthouse(self, node_id: str) -> task_pb2.Task:
        task = task_pb2.Task(id=_lighthouse_id(self.job), attempt=1)
        task.lighthouse.job_id = self.job.id
        task.lighthouse.min_ranks = self.job.spec.workers.min
        return self.put_on(task, node_id)

    def _trainer(self, rank: int, node_id: str) -> task_pb2.Task:
        task = task_pb2.Task(
            id=f"{self.job.id}-r{rank}", attempt=1, resources=self.job.spec.resources
        )
        task.trainer.job_id = self.job.id
        task.trainer.rank = rank
        task.trainer.spec.CopyFrom(self.job.spec.train)
        task.trainer.lighthouse_task_id = _lighthouse_id(self.job)
        task.trainer.min_ranks = self.job.spec.workers.min
        return self.put_on(task, node_id)


def _lighthouse_id(job: job_pb2.Job) -> str:
    return f"{job.id}-lighthouse"


def _is_fatal(task: task_pb2.Task, status: task_pb2.TaskStatus) -> bool:
    failed = status.state == task_pb2.TASK_STATE_FAILED
    return failed and (status.user_error or task.attempt >= MAX_FAILURES)
