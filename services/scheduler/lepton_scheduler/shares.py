"""Fair shares between tenants: dominant resource fairness.

Ghodsi et al., "Dominant Resource Fairness" (NSDI 2011): a tenant's share is that of the resource
of which it uses the largest part, and whoever has the smallest share comes next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from lepton_ai.proto.v1 import node_pb2, task_pb2
from lepton_scheduler.cluster import Cluster, job_of

__all__ = ["Shares"]

_Amounts = tuple[float, float, float]  # processors, memory, accelerators


class Shares:
    """How much of the cluster each tenant uses, kept up to date while decisions are being made."""

    def __init__(self, cluster: Cluster) -> None:
        self._whole = _total(node.capacity for node in cluster.workers.values())
        self._used: defaultdict[str, _Amounts] = defaultdict(lambda: (0.0, 0.0, 0.0))
        for task in cluster.alive():
            self.add(_tenant(cluster, task), [task])

    def add(self, tenant: str, tasks: Iterable[task_pb2.Task]) -> None:
        """Count what tasks use as their tenant's."""
        used, more = self._used[tenant], _total(task.resources for task in tasks)
        self._used[tenant] = (used[0] + more[0], used[1] + more[1], used[2] + more[2])

    def of(self, tenant: str) -> float:
        """The share of a tenant, from 0 to 1."""
        pairs = zip(self._used[tenant], self._whole, strict=True)
        return max(used / whole if whole else 0.0 for used, whole in pairs)


def _tenant(cluster: Cluster, task: task_pb2.Task) -> str:
    if task.HasField("replica"):
        deployment = cluster.deployments.get(task.replica.deployment)
        return deployment.tenant if deployment else ""
    job = cluster.jobs.get(job_of(task))
    return job.tenant if job else ""


def _total(amounts: Iterable[node_pb2.Resources]) -> _Amounts:
    cpus = memory = gpus = 0.0
    for amount in amounts:
        cpus += amount.cpus
        memory += amount.memory_bytes
        gpus += amount.gpus
    return cpus, memory, gpus
