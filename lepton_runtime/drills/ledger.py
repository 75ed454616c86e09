"""What may never be written to etcd, whatever is hurt: checked on every write, in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.state import Change, Delete, Put, Record, Snapshot, State

__all__ = ["Ledger", "Moment"]

_ENDED = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)


@dataclass(frozen=True)
class Moment:
    """A node that left or a leader that was elected, and when."""

    name: str
    at: float


@dataclass
class Ledger:
    """Reads every write, and keeps those that break a rule.

    Attributes:
        broken: Each write that no correct cluster makes, for people.
        lost: Nodes of which the record went, or changed hands.
        leaders: Schedulers that began to lead.
    """

    clock: Callable[[], float] = time.time
    broken: list[str] = field(default_factory=list[str])
    lost: list[Moment] = field(default_factory=list[Moment])
    leaders: list[Moment] = field(default_factory=list[Moment])
    _token: int = 0
    _jobs: dict[str, job_pb2.Job] = field(default_factory=dict[str, job_pb2.Job])
    _tasks: dict[str, task_pb2.Task] = field(default_factory=dict[str, task_pb2.Task])
    _nodes: dict[str, str] = field(default_factory=dict[str, str])
    _steps: dict[str, int] = field(default_factory=dict[str, int])

    async def follow(self, state: State) -> None:
        """Read until cancelled."""
        async for change in state.watch(f"{keys.ROOT}/"):
            self.apply(change)

    def apply(self, change: Change) -> None:
        """Read one change."""
        match change:
            case Snapshot(records=records):
                self._begin(records)
            case Put(record=record):
                self._put(record)
            case Delete(key=key):
                self._delete(key)

    def _begin(self, records: tuple[Record, ...]) -> None:
        """Take a view as it is: what was written unseen is held against what was known."""
        present = {record.key for record in records}
        known = [*map(keys.job, self._jobs), *map(keys.node, self._nodes), *self._tasks]
        for key in known:
            if key not in present:
                self._delete(key)
        # Tokens are of use only where the order is known.
        election = next((r.create_revision for r in records if r.key == keys.ELECTION), 0)
        for record in sorted(records, key=lambda record: record.mod_revision):
            if record.key.startswith(keys.TASKS):
                self._tasks[record.key] = task_pb2.Task.FromString(record.value)
            else:
                self._put(record)
        self._token = election

    def _put(self, record: Record) -> None:
        kinds: dict[str, Callable[[Record], None]] = {
            keys.ELECTION: self._elected,
            keys.JOBS: self._job,
            keys.NODES: self._node,
            keys.TASKS: self._task,
            keys.TASK_STATUS: self._status,
            keys.CHECKPOINTS: self._checkpoint,
        }
        for prefix, read in kinds.items():
            if record.key.startswith(prefix):
                read(record)

    def _delete(self, key: str) -> None:
        self._tasks.pop(key, None)
        if key.startswith(keys.NODES):
            name = key.removeprefix(keys.NODES)
            self._nodes.pop(name, None)
            self.lost.append(Moment(name, self.clock()))
        elif key.startswith(keys.JOBS):
            self._jobs.pop(key.removeprefix(keys.JOBS), None)
            self.broken.append(f"{key} was removed")
        elif key == keys.ELECTION:
            self._token = 0

    def _elected(self, record: Record) -> None:
        if record.create_revision != self._token:
            self.leaders.append(Moment(record.value.decode(), self.clock()))
        self._token = record.create_revision

    def _node(self, record: Record) -> None:
        node = node_pb2.Node.FromString(record.value)
        if self._nodes.get(node.id, node.incarnation) != node.incarnation:
            self.lost.append(Moment(node.id, self.clock()))
        self._nodes[node.id] = node.incarnation

    def _job(self, record: Record) -> None:
        job = job_pb2.Job.FromString(record.value)
        before = self._jobs.get(job.id)
        if before is not None and before.state in _ENDED and job != before:
            self.broken.append(f"job {job.id} changed after its end")
        self._jobs[job.id] = job

    def _task(self, record: Record) -> None:
        task = task_pb2.Task.FromString(record.value)
        if task.fencing_token != self._token:
            self.broken.append(f"task {task.id} was written under an old token")
        for key, other in self._tasks.items():
            if other.id == task.id and key != record.key:
                self.broken.append(f"task {task.id} is on {other.node_id} and {task.node_id}")
        self._tasks[record.key] = task

    def _status(self, record: Record) -> None:
        status = task_pb2.TaskStatus.FromString(record.value)
        key = keys.task(status.node_id, status.task_id, status.attempt)
        if key not in self._tasks:
            self.broken.append(f"attempt {status.attempt} of {status.task_id} spoke when replaced")

    def _checkpoint(self, record: Record) -> None:
        job_id = record.key.removeprefix(keys.CHECKPOINTS)
        known = job_pb2.Checkpoints.FromString(record.value).newest_first
        newest = known[0].step if known else 0
        if newest < self._steps.get(job_id, 0):
            self.broken.append(f"job {job_id} went back to a checkpoint of step {newest}")
        self._steps[job_id] = newest
