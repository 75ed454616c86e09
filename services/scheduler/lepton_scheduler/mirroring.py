"""Requests that are asked of two versions, so that their answers can be compared."""

from __future__ import annotations

import math

from lepton_ai.proto.v1 import deployment_pb2
from lepton_scheduler.cluster import Cluster

__all__ = ["agreement_so_far", "is_more_than_enough", "note", "shadow_of"]

# So many, of however many there are, that it costs next to nothing.
_ENOUGH_PER_S = 20.0
_OVER_S = 2.0
_DEFAULT_TOLERANCE = 0.01
# Between figures for people: each change of a record is told to everybody.
_NOTED_S = 5.0


def shadow_of(
    now: float, cluster: Cluster, deployment: deployment_pb2.Deployment
) -> deployment_pb2.Shadow:
    """What is mirrored while a version takes over.

    Args:
        now: Seconds since the epoch.
        cluster: What gateways report.
        deployment: With a rollout.
    """
    spec = deployment.spec.rollout
    return deployment_pb2.Shadow(
        version=deployment.rollout.version,
        beside=deployment.serving_version,
        percent=spec.shadow_percent or _enough(now, cluster, deployment),
        tolerance=spec.tolerance if spec.HasField("tolerance") else _DEFAULT_TOLERANCE,
    )


def is_more_than_enough(
    now: float, cluster: Cluster, deployment: deployment_pb2.Deployment
) -> bool:
    """Whether many more ask than when it was decided how many are mirrored."""
    return deployment.shadow.percent > 2 * _enough(now, cluster, deployment)


def _enough(now: float, cluster: Cluster, deployment: deployment_pb2.Deployment) -> int:
    """Percent of the requests."""
    rate = cluster.measures.rate(now, cluster.gateways, deployment.spec.name, _OVER_S)
    return math.ceil(100 * _ENOUGH_PER_S / max(rate, _ENOUGH_PER_S))


def agreement_so_far(
    now: float, cluster: Cluster, deployment: deployment_pb2.Deployment
) -> deployment_pb2.Agreement:
    """How far the answers of the version that is taking over agree with the serving one's."""
    shadow, rollout = deployment.shadow, deployment.rollout
    counts = cluster.measures.counts(deployment.spec.name, rollout.since_revision)
    count = counts[rollout.version]
    found = deployment_pb2.Agreement(
        version=shadow.version,
        beside=shadow.beside,
        rows=count.rows,
        agreed=count.agreed,
        unanswered=count.unanswered,
        dropped=count.dropped,
    )
    found.counted_at.FromNanoseconds(int(now * 1e9))
    return found


def note(
    now: float, deployment: deployment_pb2.Deployment, agreement: deployment_pb2.Agreement
) -> None:
    """Put on record how far answers agree: now and then, and when it is decided."""
    noted = deployment.agreement
    due = noted.counted_at.ToNanoseconds() / 1e9 + _NOTED_S
    more = (agreement.rows, agreement.dropped) != (noted.rows, noted.dropped)
    if agreement.version and more and (now >= due or not deployment.HasField("rollout")):
        noted.CopyFrom(agreement)
