"""How many replicas a deployment should have: up with the load at once, down after a calm."""

from __future__ import annotations

import math

from lepton_ai.proto.v1 import deployment_pb2, task_pb2
from lepton_scheduler.cluster import Cluster

__all__ = ["DEFAULT_CALM_S", "DEFAULT_OUTSTANDING", "MAX_CALM_S", "wanted_replicas"]

DEFAULT_OUTSTANDING = 8
DEFAULT_CALM_S = 60.0
MAX_CALM_S = 600.0
_ON_THE_WAY = (task_pb2.TASK_STATE_UNSPECIFIED, task_pb2.TASK_STATE_STARTING)
# A single sample says little of a load that comes and goes within milliseconds.
_RISE_S = 1.5


def wanted_replicas(now: float, cluster: Cluster, deployment: deployment_pb2.Deployment) -> int:
    """How many replicas of the serving version are to run.

    As many as keep the requests under way at the target for each. What gateways do not report is
    no reason to change anything.

    Args:
        now: Seconds since the epoch.
        cluster: What is there, and what gateways report.
        deployment: As it stands.
    """
    spec = deployment.spec
    if not spec.HasField("scale"):
        return spec.replicas
    scale, current = spec.scale, deployment.wanted_replicas
    if not deployment.serving_version:
        # Whether it can be served at all is found out before anybody asks.
        return max(current, scale.min_replicas, 1)
    least, most = scale.min_replicas, scale.max_replicas
    return (
        min(max(_by_load(now, cluster, deployment), least), most) if cluster.gateways else current
    )


def _by_load(now: float, cluster: Cluster, deployment: deployment_pb2.Deployment) -> int:
    spec, current = deployment.spec, deployment.wanted_replicas
    target = spec.scale.target_outstanding or DEFAULT_OUTSTANDING
    calm_s = spec.scale.calm_s or DEFAULT_CALM_S
    measures, gateways = cluster.measures, cluster.gateways
    recent = measures.under_way(now, gateways, spec.name, _RISE_S)
    needed = math.ceil(recent.mean / target) if recent else 0
    if measures.waiting(spec.name):
        needed = max(needed, 1)
    if needed > current:
        return needed
    lull = measures.under_way(now, gateways, spec.name, calm_s)
    if lull is None:
        return current
    asleep = measures.is_quiet(now, gateways, spec.name, calm_s) and not any(
        _has_just_come(now, cluster.status_of(task), calm_s)
        for task in cluster.of_deployment(spec.name)
        if not cluster.is_lost(task)
    )
    return min(current, max(math.ceil(lull.peak / target), 0 if asleep else 1))


def _has_just_come(now: float, status: task_pb2.TaskStatus, calm_s: float) -> bool:
    """Whether a replica loads, or answers for less than a calm: nobody could ask it before."""
    if status.state in _ON_THE_WAY:
        return True
    running = status.state == task_pb2.TASK_STATE_RUNNING
    return running and status.updated_at.ToNanoseconds() / 1e9 > now - calm_s
