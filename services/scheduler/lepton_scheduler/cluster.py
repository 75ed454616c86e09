"""The cluster as a decision sees it: records, nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from lepton_ai.proto.v1 import deployment_pb2, job_pb2, node_pb2, storage_pb2, task_pb2
from lepton_scheduler.measures import Measures

__all__ = ["ENDED", "Cluster", "TaskKey", "job_of", "rank_number"]

TaskKey = tuple[str, str]  # node id, task id
ENDED = frozenset(
    {job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED}
)


@dataclass
class Cluster:
    """What is wanted (jobs, deployments) and what is there (workers, tasks, statuses, models)."""

    workers: dict[str, node_pb2.Node] = field(default_factory=dict)
    jobs: dict[str, job_pb2.Job] = field(default_factory=dict)
    deployments: dict[str, deployment_pb2.Deployment] = field(default_factory=dict)
    tasks: dict[TaskKey, task_pb2.Task] = field(default_factory=dict)
    statuses: dict[TaskKey, task_pb2.TaskStatus] = field(default_factory=dict)
    models: dict[tuple[str, int], storage_pb2.Model] = field(default_factory=dict)
    aliases: dict[tuple[str, str], int] = field(default_factory=dict)
    # Gateways that are alive, and what they say of requests.
    gateways: dict[str, node_pb2.Node] = field(default_factory=dict)
    measures: Measures = field(default_factory=Measures)
    # Workers that take no new work, and those that are to be emptied.
    cordoned: frozenset[str] = frozenset()
    draining: frozenset[str] = frozenset()

    def open_workers(self) -> dict[str, node_pb2.Node]:
        """Workers that take new work."""
        closed = self.cordoned | self.draining
        return {name: node for name, node in self.workers.items() if name not in closed}

    def must_leave(self, task: task_pb2.Task) -> bool:
        """Whether a task that runs is on a node that is to be emptied."""
        return task.node_id in self.draining and not self.is_lost(task)

    def onnx_object(self, spec: deployment_pb2.DeploymentSpec) -> str:
        """What a deployment serves; empty while its model has not been seen."""
        model = self.models.get((spec.model, spec.version), storage_pb2.Model())
        variants = {variant.kind: variant.onnx_object for variant in model.variants}
        return variants.get(spec.variant, model.onnx_object)

    def steps(self, spec: deployment_pb2.DeploymentSpec) -> list[task_pb2.ReplicaStep]:
        """The models of an ensemble in order; none while one of them has not been seen."""
        main = task_pb2.ReplicaStep(object_id=self.onnx_object(spec), inputs=spec.inputs)
        before, after = map(self._steps, (spec.before, spec.after))
        steps = [*before, main, *after]
        return steps if all(step.object_id for step in steps) else []

    def _steps(self, parts: Iterable[deployment_pb2.EnsembleStep]) -> list[task_pb2.ReplicaStep]:
        known = [self.models.get((p.model, p.version), storage_pb2.Model()) for p in parts]
        return [
            task_pb2.ReplicaStep(object_id=model.onnx_object, inputs=part.inputs)
            for model, part in zip(known, parts, strict=True)
        ]

    def status_of(self, task: task_pb2.Task) -> task_pb2.TaskStatus:
        """What the worker says of this attempt; unspecified while it has said nothing."""
        status = self.statuses.get((task.node_id, task.id))
        if status is None or status.attempt != task.attempt:
            return task_pb2.TaskStatus(task_id=task.id, node_id=task.node_id)
        return status

    def is_lost(self, task: task_pb2.Task) -> bool:
        """Whether the process that had the task is gone."""
        node = self.workers.get(task.node_id)
        return node is None or node.incarnation != task.node_incarnation

    def alive(self) -> Iterable[task_pb2.Task]:
        """Tasks whose node is still the one they were placed on."""
        return (task for task in self.tasks.values() if not self.is_lost(task))

    def by_job(self) -> dict[str, list[task_pb2.Task]]:
        """Each job's tasks, the lighthouse first, then ranks in order."""
        mine: defaultdict[str, list[task_pb2.Task]] = defaultdict(list)
        for task in sorted(self.tasks.values(), key=_rank_order):
            mine[job_of(task)].append(task)
        return mine

    def of_deployment(self, name: str) -> list[task_pb2.Task]:
        """A deployment's replicas, of every version."""
        mine = [t for t in self.tasks.values() if t.replica.deployment == name]
        return sorted(mine, key=lambda t: (t.replica.version, t.id))


def _rank_order(task: task_pb2.Task) -> tuple[bool, int]:
    return (not task.HasField("lighthouse"), rank_number(task))


def rank_number(task: task_pb2.Task) -> int:
    """Of a rank of any kind of job."""
    return task.trainer.rank or task.script.rank or task.score.rank


def job_of(task: task_pb2.Task) -> str:
    """The job that a task belongs to; empty for a replica."""
    work = task.WhichOneof("work")
    return "" if work in (None, "replica") else getattr(task, work).job_id
