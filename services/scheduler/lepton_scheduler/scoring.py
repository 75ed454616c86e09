"""Decisions about an evaluation or a batch prediction."""

from __future__ import annotations

from collections.abc import Sequence

from lepton_ai.proto.v1 import task_pb2
from lepton_scheduler.elastic import Elastic

__all__ = ["Scoring"]


class Scoring(Elastic):
    """A model over a dataset: ranks that take shards, none of which waits for another."""

    does = "compute"
    done = "every shard is done"

    def members(self, nodes: Sequence[str]) -> tuple[task_pb2.Task, ...]:
        """The ranks."""
        return tuple(self.new_rank(rank, node_id) for rank, node_id in enumerate(nodes))

    def new_rank(self, number: int, node_id: str) -> task_pb2.Task:
        """A rank, which takes the shards that are left."""
        task = task_pb2.Task(
            id=f"{self.job.id}-r{number}", attempt=1, resources=self.job.spec.resources
        )
        task.score.job_id = self.job.id
        task.score.rank = number
        task.score.spec.CopyFrom(self.job.spec.score)
        return self.put_on(task, node_id)
