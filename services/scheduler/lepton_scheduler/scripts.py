"""Decisions about a job that runs a user's own program: its ranks live and die together.

Such a program cannot take in a rank while it runs. When one is lost, all are started again, as
torchrun does, each time as an attempt of its own: what an earlier one still says is not heard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lepton_ai.proto.v1 import job_pb2, task_pb2
from lepton_scheduler.actions import Action, UpdateJob
from lepton_scheduler.attempts import MAX_FAILURES, back_off_s
from lepton_scheduler.gang import Gang
from lepton_scheduler.transitions import moved

__all__ = ["Script"]

# A rank that fails because a peer's node went away says so before that node's lease has run out.
_BLAME_S = 8.0
_ENDED = (task_pb2.TASK_STATE_SUCCEEDED, task_pb2.TASK_STATE_FAILED)


class Script(Gang):
    """A program on a gang of ranks."""

    def members(self, nodes: Sequence[str]) -> tuple[task_pb2.Task, ...]:
        """The ranks; those of one node follow each other."""
        counts = Counter(nodes)
        tasks: list[task_pb2.Task] = []
        for group, (node_id, count) in enumerate(counts.items()):
            for local in range(count):
                task = self._rank(len(tasks), len(nodes))
                task.script.local_rank, task.script.local_world_size = local, count
                task.script.group_rank, task.script.group_world_size = group, len(counts)
                tasks.append(self.put_on(task, node_id))
        return tuple(tasks)

    def outlives(self, lost: int) -> bool:
        """Never: the others would wait for it."""
        return False

    def keep_going(self) -> Iterator[Action]:
        """See what became of the ranks; start them again where that may help."""
        former = [task for task in self.tasks if task.attempt != self.job.attempt]
        if former:
            for task in former:
                yield from self.remove(task, "the job was started again")
        elif all(self.state(task) == task_pb2.TASK_STATE_SUCCEEDED for task in self.tasks):
            yield self.ended(job_pb2.JOB_STATE_SUCCEEDED, "every rank ended well", self._result())
        elif lost := self._lost():
            yield from self._restart(f"the node of rank {lost[0].script.rank} was lost")
        elif broken := self._failed(user_error=False):
            yield from self._try_again(broken[0])
        elif failed := self._failed(user_error=True):
            if self._is_certain(failed):
                yield self.ended(job_pb2.JOB_STATE_FAILED, failed[0].reason)
        elif self._must_move():
            yield from self._restart("a node is being drained")
        else:
            yield from self._follow_ranks()

    def _lost(self) -> list[task_pb2.Task]:
        """Ranks that went before they were done."""
        return [
            task
            for task in self.tasks
            if self.cluster.is_lost(task) and self.state(task) not in _ENDED
        ]

    def _failed(self, *, user_error: bool) -> list[task_pb2.TaskStatus]:
        """What failed ranks say, the first to fail first: it is the cause of the others'."""
        statuses = map(self.cluster.status_of, self.tasks)
        failed = [
            status
            for status in statuses
            if status.state == task_pb2.TASK_STATE_FAILED and status.user_error == user_error
        ]
        return sorted(failed, key=lambda status: status.updated_at.ToNanoseconds())

    def _is_certain(self, failed: list[task_pb2.TaskStatus]) -> bool:
        """Whether it is the program's own error, and no node that went away is behind it."""
        if all(self.state(task) in _ENDED for task in self.tasks):
            return True
        return self.now >= failed[0].updated_at.ToNanoseconds() / 1e9 + _BLAME_S

    def _try_again(self, broken: task_pb2.TaskStatus) -> Iterator[Action]:
        failures = self.job.failures + 1
        if failures >= MAX_FAILURES:
            yield self.ended(job_pb2.JOB_STATE_FAILED, broken.reason)
        elif self.now >= broken.updated_at.ToNanoseconds() / 1e9 + back_off_s(failures):
            yield from self._restart(broken.reason, failures)

    def _restart(self, reason: str, failures: int | None = None) -> Iterator[Action]:
        """Begin another attempt: first that is written, then the tasks of this one go."""
        text = f"{reason}: all ranks start again"
        job = moved(self.job, job_pb2.JOB_STATE_RESIZING, text, self.now, anew=True)
        if failures is not None:
            job.failures = failures
        yield UpdateJob(job)
        yield from self.remove_all(text)

    def _must_move(self) -> bool:
        """Whether a rank is on a node to be emptied, and the job would fit on the others."""
        if not any(map(self.cluster.must_leave, self.tasks)):
            return False
        for task in self.tasks:
            self.rooms.give_back(task.node_id, task.resources)
        nodes = self.room_for(self.job.spec.workers.max)
        self.leave_room(nodes)
        for task in self.tasks:
            self.rooms.take(task.node_id, task.resources)
        return len(nodes) >= self.job.spec.workers.min

    def _follow_ranks(self) -> Iterator[Action]:
        up = (task_pb2.TASK_STATE_RUNNING, task_pb2.TASK_STATE_SUCCEEDED)
        if all(self.state(task) in up for task in self.tasks):
            yield from self.follow(job_pb2.JOB_STATE_RUNNING, f"{len(self.tasks)} ranks run")
        elif any(map(self.state, self.tasks)):
            yield from self.follow(job_pb2.JOB_STATE_STARTING, "ranks fetch the code and start")

    def _result(self) -> job_pb2.JobResult:
        """What the ranks left behind: where two wrote the same file, the lower rank's."""
        result = job_pb2.JobResult()
        files: dict[str, job_pb2.JobFile] = {}
        for task in reversed(self.tasks):
            left = self.cluster.status_of(task).result
            files |= {file.path: file for file in left.files}
            result.metrics.update(left.metrics)
        result.files.extend(files[path] for path in sorted(files))
        return result

    def _rank(self, rank: int, world_size: int) -> task_pb2.Task:
        task = task_pb2.Task(
            id=f"{self.job.id}-r{rank}",
            attempt=self.job.attempt,
            resources=self.job.spec.resources,
        )
        task.script.job_id = self.job.id
        task.script.rank, task.script.world_size = rank, world_size
        task.script.spec.CopyFrom(self.job.spec.script)
        task.script.store_task_id = f"{self.job.id}-r0"
        task.script.restarts = self.job.attempt - 1
        return task
