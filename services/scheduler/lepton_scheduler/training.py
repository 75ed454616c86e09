"""Decisions about a job that trains a declared model."""

from __future__ import annotations

from collections.abc import Sequence

from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_scheduler.elastic import Elastic

__all__ = ["Training"]

_LIGHTHOUSE = node_pb2.Resources()


class Training(Elastic):
    """A training run: a lighthouse, and ranks that share every step."""

    does = "train"
    done = "trained"

    def members(self, nodes: Sequence[str]) -> tuple[task_pb2.Task, ...]:
        """The lighthouse and the ranks."""
        lighthouse = self._lighthouse(self.rooms.choose(_LIGHTHOUSE, {}) or nodes[0])
        return lighthouse, *(self.new_rank(rank, node_id) for rank, node_id in enumerate(nodes))

    def new_rank(self, number: int, node_id: str) -> task_pb2.Task:
        """A trainer, which takes weights from a peer where there is one."""
        task = task_pb2.Task(
            id=f"{self.job.id}-r{number}", attempt=1, resources=self.job.spec.resources
        )
        task.trainer.job_id = self.job.id
        task.trainer.rank = number
        task.trainer.spec.CopyFrom(self.job.spec.train)
        task.trainer.lighthouse_task_id = _lighthouse_id(self.job)
        task.trainer.min_ranks = self.job.spec.workers.min
        return self.put_on(task, node_id)

    def _lighthouse(self, node_id: str) -> task_pb2.Task:
        task = task_pb2.Task(id=_lighthouse_id(self.job), attempt=1)
        task.lighthouse.job_id = self.job.id
        task.lighthouse.min_ranks = self.job.spec.workers.min
        return self.put_on(task, node_id)


def _lighthouse_id(job: job_pb2.Job) -> str:
    return f"{job.id}-lighthouse"
