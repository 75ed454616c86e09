"""How a version takes over from the one before it: warm first, then by stages, or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lepton_ai.proto.v1 import deployment_pb2
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.measures import Count

__all__ = ["DEFAULT_STAGE_S", "Standing", "compare", "roll"]

DEFAULT_STAGE_S = 10.0
_DEFAULT_STAGE_REQUESTS = 100
_STAGES = (1, 10, 50, 100)
_SHORTEST_STAGE_S = 1.0
# Nobody asked for this long: there is nothing to be learnt from waiting.
_QUIET_S = 2.0
# A version that is not there after this long never will be.
_PATIENCE_S = 300.0

# When a version counts as worse. Few requests prove nothing, and one mishap is none.
_FEWEST_ERRORS = 3
_FEWEST_REQUESTS = 20
_MORE_ERRORS = 0.01
_SLOWER, _SLOWER_S = 2.0, 0.02
# 99 % one-sided, of the normal distribution.
_Z = 2.326
# Without the other version's figures: a client's own bad requests are seldom most of them.
_MOST = 0.5


@dataclass(frozen=True)
class Standing:
    """How a version's replicas stand.

    Args:
        ready: How many answer.
        failure: Why the version can never answer; empty if it may.
    """

    ready: int = 0
    failure: str = ""


def roll(
    now: float,
    cluster: Cluster,
    deployment: deployment_pb2.Deployment,
    standings: Mapping[int, Standing],
) -> None:
    """Bring a deployment one step nearer to the version that it asks for, or back.

    Args:
        now: Seconds since the epoch.
        cluster: What gateways report.
        deployment: Changed in place.
        standings: Of each version that has replicas.
    """
    wanted, serving = deployment.spec.version, deployment.serving_version
    if not serving:
        if standings.get(wanted, Standing()).ready:
            _switch(now, deployment)
    elif wanted == serving or deployment.rejected_generation == deployment.generation:
        other = standings.get(deployment.rollout.version, Standing())
        if standings.get(serving, Standing()).ready or not other.ready:
            deployment.ClearField("rollout")
            _send(now, deployment, {serving: 100})
    elif deployment.rollout.version != wanted:
        _begin(now, deployment)
    else:
        _go_on(now, cluster, deployment, standings)


def _begin(now: float, deployment: deployment_pb2.Deployment) -> None:
    deployment.rollout.Clear()
    deployment.rollout.version = deployment.spec.version
    deployment.rollout.stage_began_at.FromNanoseconds(int(now * 1e9))
    _send(now, deployment, {deployment.serving_version: 100})


def _go_on(
    now: float,
    cluster: Cluster,
    deployment: deployment_pb2.Deployment,
    standings: Mapping[int, Standing],
) -> None:
    rollout = deployment.rollout
    new = standings.get(rollout.version, Standing())
    old = standings.get(deployment.serving_version, Standing())
    if new.failure:
        _reject(now, deployment, new.failure)
    elif not deployment.wanted_replicas or (new.ready and not old.ready):
        _switch(now, deployment)  # nobody is served by the old one
    elif worse := _worse(cluster, deployment):
        _reject(now, deployment, worse)
    elif missing := _missing(now, cluster, deployment, new):
        if _lasted(now, deployment) > _PATIENCE_S and not _is_held(deployment):
            _reject(now, deployment, f"after {_PATIENCE_S:g} s {missing}")
    elif _stage_is_over(now, cluster, deployment):
        _next_stage(now, cluster, deployment)


def _missing(
    now: float, cluster: Cluster, deployment: deployment_pb2.Deployment, new: Standing
) -> str:
    """What the new version lacks to get more requests."""
    if new.ready < deployment.wanted_replicas:
        return f"{new.ready} of its {deployment.wanted_replicas} replicas answer: is there room?"
    name, version = deployment.spec.name, deployment.rollout.version
    if not cluster.measures.is_warm(now, cluster.gateways, name, version):
        return "some gateway does not report that it reaches it"
    return ""


def _is_held(deployment: deployment_pb2.Deployment) -> bool:
    held = deployment.spec.rollout.hold_percent
    return bool(held) and deployment.rollout.percent == held


def _lasted(now: float, deployment: deployment_pb2.Deployment) -> float:
    """Seconds since the stage began."""
    return now - deployment.rollout.stage_began_at.ToNanoseconds() / 1e9


def _stage_is_over(now: float, cluster: Cluster, deployment: deployment_pb2.Deployment) -> bool:
    rollout, spec, measures = deployment.rollout, deployment.spec.rollout, cluster.measures
    if not measures.carried_out(cluster.gateways, deployment):
        return False
    if not rollout.percent or measures.is_quiet(
        now, cluster.gateways, deployment.spec.name, _QUIET_S
    ):
        return True
    lasted = _lasted(now, deployment)
    counts = measures.counts(deployment.spec.name, deployment.traffic_revision)
    enough = counts[rollout.version].requests >= (spec.stage_requests or _DEFAULT_STAGE_REQUESTS)
    return lasted >= _stage_s(deployment) or (enough and lasted >= _SHORTEST_STAGE_S)


def _next_stage(now: float, cluster: Cluster, deployment: deployment_pb2.Deployment) -> None:
    rollout = deployment.rollout
    limit = deployment.spec.rollout.hold_percent or 100
    at_once = not _stage_s(deployment) or cluster.measures.is_quiet(
        now, cluster.gateways, deployment.spec.name, _QUIET_S
    )
    if limit == 100 and (at_once or rollout.percent == 100):
        _switch(now, deployment)
        return
    ahead = [*(stage for stage in _STAGES if rollout.percent < stage < limit), limit]
    share = limit if at_once else ahead[0]
    if share == rollout.percent:
        return  # it stays at this share until the spec changes
    first = not rollout.percent
    rollout.percent = share
    rollout.stage_began_at.FromNanoseconds(int(now * 1e9))
    old = 100 - rollout.percent
    shares = {deployment.serving_version: old, rollout.version: rollout.percent}
    _send(now, deployment, {version: share for version, share in shares.items() if share})
    if first:
        rollout.since_revision = deployment.traffic_revision


def _switch(now: float, deployment: deployment_pb2.Deployment) -> None:
    """Send everything to the version that is asked for."""
    deployment.serving_version = deployment.spec.version
    deployment.serving_spec.CopyFrom(deployment.spec)
    deployment.ClearField("rollout")
    _send(now, deployment, {deployment.serving_version: 100})


def _reject(now: float, deployment: deployment_pb2.Deployment, why: str) -> None:
    at = f" at {deployment.rollout.percent} %" if deployment.rollout.percent else ""
    deployment.rejected_generation = deployment.generation
    deployment.rejected_reason = f"version {deployment.rollout.version} was rolled back{at}: {why}"
    deployment.ClearField("rollout")
    _send(now, deployment, {deployment.serving_version: 100})


def _send(now: float, deployment: deployment_pb2.Deployment, shares: Mapping[int, int]) -> None:
    """Have gateways send requests by these shares."""
    if {share.version: share.percent for share in deployment.traffic} == shares:
        return
    del deployment.traffic[:]
    for version, percent in sorted(shares.items()):
        deployment.traffic.add(version=version, percent=percent)
    deployment.traffic_revision += 1
    deployment.traffic_changed_at.FromNanoseconds(int(now * 1e9))


def _stage_s(deployment: deployment_pb2.Deployment) -> float:
    spec = deployment.spec.rollout
    return spec.stage_s if spec.HasField("stage_s") else DEFAULT_STAGE_S


def _worse(cluster: Cluster, deployment: deployment_pb2.Deployment) -> str:
    rollout = deployment.rollout
    if not rollout.percent:
        return ""
    counts = cluster.measures.counts(deployment.spec.name, rollout.since_revision)
    return compare(counts[deployment.serving_version], counts[rollout.version])


def compare(old: Count, new: Count) -> str:
    """In what a version is worse than the one before it; empty where it is not.

    Args:
        old: What became of the serving version's requests.
        new: What became of the other's, in the same time.
    """
    known = old.requests >= _FEWEST_REQUESTS
    bearable = old.error_rate + _MORE_ERRORS if known else _MOST
    if new.errors >= _FEWEST_ERRORS and _least_rate(new) > bearable:
        return (
            f"{new.errors} of {new.requests} requests failed, {old.errors} of {old.requests} before"
        )
    enough = known and new.requests >= _FEWEST_REQUESTS
    if enough and new.mean_s > _SLOWER * old.mean_s + _SLOWER_S:
        return f"a request takes {new.mean_s * 1e3:.0f} ms, {old.mean_s * 1e3:.0f} ms before"
    return ""


def _least_rate(count: Count) -> float:
    """The lowest error rate that what was seen allows: the lower end of Wilson's interval.

    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval
    """
    n, p, z2 = count.requests, count.error_rate, _Z * _Z
    middle = p + z2 / (2 * n)
    spread = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (middle - spread) / (1 + z2 / n)
