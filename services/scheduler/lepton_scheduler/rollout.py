"""How a version takes over from the one before it: warm first, then by stages, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lepton_ai.proto.v1 import deployment_pb2
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.comparison import FEWEST_ROWS, compare, disagreement
from lepton_scheduler.mirroring import (
    agreement_so_far,
    is_more_than_enough,
    note,
    shadow_of,
)

__all__ = ["DEFAULT_STAGE_S", "Standing", "roll"]

DEFAULT_STAGE_S = 10.0
_DEFAULT_STAGE_REQUESTS = 100
_STAGES = (1, 10, 50, 100)
_SHORTEST_STAGE_S = 1.0
# Nobody asked for this long: there is nothing to be learnt from waiting.
_QUIET_S = 2.0
# A version that is not there after this long never will be.
_PATIENCE_S = 300.0


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
        if wanted == serving:
            deployment.serving_spec.CopyFrom(deployment.spec)
        other = standings.get(deployment.rollout.version, Standing())
        if standings.get(serving, Standing()).ready or not other.ready:
            deployment.ClearField("rollout")
            _send(now, deployment, {serving: 100})
    elif not deployment.wanted_replicas and _is_to_be_seen(deployment):
        deployment.ClearField("rollout")  # it begins when somebody asks
        _send(now, deployment, {serving: 100})
    elif deployment.rollout.version != wanted:
        _begin(now, deployment)
    else:
        _go_on(now, cluster, deployment, standings)


def _begin(now: float, deployment: deployment_pb2.Deployment) -> None:
    deployment.rollout.Clear()
    deployment.ClearField("agreement")
    deployment.rollout.version = deployment.spec.version
    deployment.rollout.stage_began_at.FromNanoseconds(int(now * 1e9))
    _send(now, deployment, {deployment.serving_version: 100})


def _go_on(
    now: float,
    cluster: Cluster,
    deployment: deployment_pb2.Deployment,
    standings: Mapping[int, Standing],
) -> None:
    new = standings.get(deployment.rollout.version, Standing())
    old = standings.get(deployment.serving_version, Standing())
    agreement = agreement_so_far(now, cluster, deployment)
    if new.failure:
        _reject(now, deployment, new.failure)
    elif _is_alone(deployment, old, new):
        _switch(now, deployment)
    elif worse := _worse(cluster, deployment):
        _reject(now, deployment, worse)
    elif missing := _missing(now, cluster, deployment, new):
        if _lasted(now, deployment) > _PATIENCE_S and not _is_held(deployment):
            _reject(now, deployment, f"after {_PATIENCE_S:g} s {missing}")
    elif deployment.spec.rollout.shadow_percent:
        _only_mirror(now, cluster, deployment)
    elif _stage_is_over(now, cluster, deployment):
        _next_stage(now, cluster, deployment)
    note(now, deployment, agreement)


def _is_to_be_seen(deployment: deployment_pb2.Deployment) -> bool:
    """Whether a version may not take over before requests have shown something of it."""
    spec = deployment.spec.rollout
    return bool(spec.hold_percent or spec.shadow_percent or spec.min_agreement)


def _is_alone(deployment: deployment_pb2.Deployment, old: Standing, new: Standing) -> bool:
    """Whether nobody is served by the old version, and might as well be by the new one."""
    spec = deployment.spec.rollout
    unseen = spec.shadow_percent or (spec.min_agreement and not deployment.rollout.percent)
    return not deployment.wanted_replicas or bool(new.ready and not old.ready and not unseen)


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
    """Whether it may stay at this stage for long."""
    percent = deployment.rollout.percent
    return percent == deployment.spec.rollout.hold_percent if percent else _is_mirrored(deployment)


def _is_mirrored(deployment: deployment_pb2.Deployment) -> bool:
    return deployment.HasField("shadow")


def _lasted(now: float, deployment: deployment_pb2.Deployment) -> float:
    """Seconds since the stage began."""
    return now - deployment.rollout.stage_began_at.ToNanoseconds() / 1e9


def _stage_is_over(now: float, cluster: Cluster, deployment: deployment_pb2.Deployment) -> bool:
    rollout, spec, measures = deployment.rollout, deployment.spec.rollout, cluster.measures
    if not measures.carried_out(cluster.gateways, deployment):
        return False
    if _is_compared(deployment) and agreement_so_far(now, cluster, deployment).rows < FEWEST_ROWS:
        return False
    if not rollout.percent or measures.is_quiet(
        now, cluster.gateways, deployment.spec.name, _QUIET_S
    ):
        return True
    lasted = _lasted(now, deployment)
    counts = measures.counts(deployment.spec.name, deployment.traffic_revision)
    enough = counts[rollout.version].requests >= (spec.stage_requests or _DEFAULT_STAGE_REQUESTS)
    return lasted >= _stage_s(deployment) or (enough and lasted >= _SHORTEST_STAGE_S)


def _is_compared(deployment: deployment_pb2.Deployment) -> bool:
    """Whether what is mirrored decides something."""
    return bool(deployment.spec.rollout.min_agreement) and _is_mirrored(deployment)


def _next_stage(now: float, cluster: Cluster, deployment: deployment_pb2.Deployment) -> None:
    rollout, spec = deployment.rollout, deployment.spec.rollout
    if spec.min_agreement and not _is_mirrored(deployment):
        _only_mirror(now, cluster, deployment)
        return
    limit = spec.hold_percent or 100
    at_once = not _stage_s(deployment) or cluster.measures.is_quiet(
        now, cluster.gateways, deployment.spec.name, _QUIET_S
    )
    if limit == 100 and (at_once or rollout.percent == 100):
        _switch(now, deployment)
        return
    ahead = [*(stage for stage in _STAGES if rollout.percent < stage < limit), limit]
    share = limit if at_once else ahead[0]
    if share != rollout.percent or is_more_than_enough(
        now, cluster, deployment
    ):  # else it stays there until the spec changes
        _set_share(now, cluster, deployment, share)


def _set_share(
    now: float, cluster: Cluster, deployment: deployment_pb2.Deployment, percent: int
) -> None:
    """Send the version that is taking over a share of the requests, and compare its answers."""
    rollout = deployment.rollout
    if rollout.percent != percent:
        rollout.percent = percent
        rollout.stage_began_at.FromNanoseconds(int(now * 1e9))
    shares = {deployment.serving_version: 100 - percent, rollout.version: percent}
    shares = {version: share for version, share in shares.items() if share}
    _send(now, deployment, shares, shadow_of(now, cluster, deployment))
    rollout.since_revision = rollout.since_revision or deployment.traffic_revision


def _only_mirror(now: float, cluster: Cluster, deployment: deployment_pb2.Deployment) -> None:
    """Have answers of the new version compared that nobody gets."""
    _set_share(now, cluster, deployment, 0)


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


def _send(
    now: float,
    deployment: deployment_pb2.Deployment,
    shares: Mapping[int, int],
    shadow: deployment_pb2.Shadow | None = None,
) -> None:
    """Have gateways send requests by these shares, and mirror some of them."""
    before = {share.version: share.percent for share in deployment.traffic}
    if before == shares and deployment.shadow == (shadow or deployment_pb2.Shadow()):
        return
    del deployment.traffic[:]
    for version, percent in sorted(shares.items()):
        deployment.traffic.add(version=version, percent=percent)
    deployment.ClearField("shadow")
    if shadow is not None:
        deployment.shadow.CopyFrom(shadow)
    deployment.traffic_revision += 1
    deployment.traffic_changed_at.FromNanoseconds(int(now * 1e9))


def _stage_s(deployment: deployment_pb2.Deployment) -> float:
    spec = deployment.spec.rollout
    return spec.stage_s if spec.HasField("stage_s") else DEFAULT_STAGE_S


def _worse(cluster: Cluster, deployment: deployment_pb2.Deployment) -> str:
    rollout = deployment.rollout
    if not rollout.since_revision:
        return ""
    counts = cluster.measures.counts(deployment.spec.name, rollout.since_revision)
    old, new = counts[deployment.serving_version], counts[rollout.version]
    return compare(old, new) or disagreement(new, deployment.spec.rollout.min_agreement)
