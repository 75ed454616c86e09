"""What gateways report of requests, put together. Lost with the leader, and counted anew."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lepton_ai.proto.v1 import deployment_pb2, node_pb2, serving_pb2

__all__ = ["Count", "Measures", "UnderWay"]

# A gateway that was silent for longer is not known to be idle, or well.
_FRESH_S = 3.0
# Longer than any calm period that a deployment may ask for.
_MEMORY_S = 660.0


@dataclass
class Count:
    """Requests that ended, and how."""

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    # Of what was mirrored: rows compared, those that agree, those that got no answer, and requests
    # that were not compared.
    rows: int = 0
    agreed: int = 0
    unanswered: int = 0
    dropped: int = 0

    def add(self, load: serving_pb2.VersionLoad) -> None:
        """Count what a report adds."""
        self.add_count(
            Count(
                load.requests,
                load.errors,
                load.seconds,
                load.compared_rows,
                load.agreed_rows,
                load.unanswered_rows,
                load.dropped,
            )
        )

    def add_count(self, other: Count) -> None:
        """Add what was counted elsewhere."""
        self.requests += other.requests
        self.errors += other.errors
        self.seconds += other.seconds
        self.rows += other.rows
        self.agreed += other.agreed
        self.unanswered += other.unanswered
        self.dropped += other.dropped

    @property
    def error_rate(self) -> float:
        """Of 1."""
        return self.errors / max(self.requests, 1)

    @property
    def mean_s(self) -> float:
        """Seconds that a request took."""
        return self.seconds / max(self.requests, 1)


@dataclass(frozen=True)
class UnderWay:
    """Requests under way over some time, of all gateways together."""

    mean: float
    peak: int


@dataclass(frozen=True)
class _Sample:
    at: float
    outstanding: int
    requests: int


@dataclass(frozen=True)
class _Report:
    at: float
    incarnation: str
    deployments: Mapping[str, serving_pb2.DeploymentLoad]


class Measures:
    """Reports of gateways, by what decisions ask of them. Time and reports come from outside."""

    def __init__(self) -> None:
        self._newest: dict[str, _Report] = {}
        # By deployment, the change of traffic that was carried out, and version.
        self._counts: defaultdict[tuple[str, int, int], Count] = defaultdict(Count)
        # By deployment and gateway, in order of time.
        self._history: defaultdict[tuple[str, str], deque[_Sample]] = defaultdict(deque)

    def add(self, now: float, report: serving_pb2.ServingReport) -> None:
        """Take a report in."""
        loads = {load.name: load for load in report.deployments}
        self._newest[report.node_id] = _Report(now, report.incarnation, loads)
        for load in report.deployments:
            for version in load.versions:
                self._counts[load.name, load.traffic_revision, version.version].add(version)
            history = self._history[load.name, report.node_id]
            asked = sum(version.requests for version in load.versions)
            history.append(_Sample(now, _under_way(load), asked))
            while history[0].at < now - _MEMORY_S:
                history.popleft()

    def forget(self, deployments: Mapping[str, deployment_pb2.Deployment]) -> None:
        """Drop what no decision about these deployments will look at."""
        for name, revision, version in list(self._counts):
            deployment = deployments.get(name)
            if deployment is None or revision < _first_revision(deployment):
                del self._counts[name, revision, version]
        for name, gateway in list(self._history):
            if name not in deployments:
                del self._history[name, gateway]

    def carried_out(
        self, gateways: Mapping[str, node_pb2.Node], deployment: deployment_pb2.Deployment
    ) -> bool:
        """Whether every gateway does what the record says of its traffic."""
        wanted = deployment.traffic_revision
        return all(
            load.traffic_revision >= wanted for load in self._loads(gateways, deployment.spec.name)
        )

    def is_warm(
        self, now: float, gateways: Mapping[str, node_pb2.Node], name: str, version: int
    ) -> bool:
        """Whether every gateway knows a replica of a version to be well."""
        return self._is_fresh(now, gateways) and all(
            any(one.version == version and one.healthy > 0 for one in load.versions)
            for load in self._loads(gateways, name)
        )

    def all_known(
        self, gateways: Mapping[str, node_pb2.Node], name: str, version: int, replicas: int
    ) -> bool:
        """Whether every gateway knows so many replicas of a version to be well."""
        return all(
            any(one.version == version and one.healthy >= replicas for one in load.versions)
            for load in self._loads(gateways, name)
        )

    def outstanding(
        self, now: float, gateways: Mapping[str, node_pb2.Node], name: str, version: int
    ) -> int | None:
        """Requests under way to a version; None where a gateway does not say."""
        if not self._is_fresh(now, gateways):
            return None
        return sum(
            one.outstanding
            for load in self._loads(gateways, name)
            for one in load.versions
            if one.version == version
        )

    def is_quiet(
        self, now: float, gateways: Mapping[str, node_pb2.Node], name: str, over_s: float
    ) -> bool:
        """Whether it is known that nobody has asked a deployment in the last seconds."""
        samples = [self._samples(now, node, name, over_s) for node in gateways.values()]
        return all(
            found is not None and not any(one.outstanding or one.requests for one in found)
            for found in samples
        )

    def counts(self, name: str, since_revision: int) -> dict[int, Count]:
        """Requests by version, from a change of the deployment's traffic on."""
        found: defaultdict[int, Count] = defaultdict(Count)
        for (deployment, revision, version), count in self._counts.items():
            if deployment == name and revision >= since_revision:
                found[version].add_count(count)
        return found

    def rate(
        self, now: float, gateways: Mapping[str, node_pb2.Node], name: str, over_s: float
    ) -> float:
        """Requests a second that were answered lately, as far as gateways say."""
        samples = (self._samples(now, node, name, over_s) or () for node in gateways.values())
        return sum(one.requests for found in samples for one in found) / over_s

    def waiting(self, name: str) -> int:
        """Requests that wait for a sleeping deployment."""
        loads = (report.deployments.get(name) for report in self._newest.values())
        return sum(load.waiting for load in loads if load is not None)

    def under_way(
        self, now: float, gateways: Mapping[str, node_pb2.Node], name: str, over_s: float
    ) -> UnderWay | None:
        """How many requests were under way in the last seconds; None if that is not known."""
        mean, peak = 0.0, 0
        for node in gateways.values():
            found = self._samples(now, node, name, over_s)
            if found is None:
                return None
            mean += sum(one.outstanding for one in found) / len(found)
            peak += max(one.outstanding for one in found)
        return UnderWay(mean, peak)

    def _samples(
        self, now: float, node: node_pb2.Node, name: str, over_s: float
    ) -> list[_Sample] | None:
        """What a gateway said in the last seconds; None where that is not all of it."""
        if self._of(node) is None:
            return None
        history = self._history[name, node.id]
        if not history or history[0].at > now - over_s or history[-1].at < now - _FRESH_S:
            return None
        return [one for one in history if one.at > now - over_s] or [history[-1]]

    def _is_fresh(self, now: float, gateways: Mapping[str, node_pb2.Node]) -> bool:
        return all(
            (report := self._of(node)) is not None and report.at >= now - _FRESH_S
            for node in gateways.values()
        )

    def _loads(
        self, gateways: Mapping[str, node_pb2.Node], name: str
    ) -> Iterable[serving_pb2.DeploymentLoad]:
        """What each gateway says of a deployment; nothing, as a message, where it says nothing."""
        nothing = serving_pb2.DeploymentLoad(name=name)
        for node in gateways.values():
            report = self._of(node)
            yield report.deployments.get(name, nothing) if report else nothing

    def _of(self, node: node_pb2.Node) -> _Report | None:
        report = self._newest.get(node.id)
        return report if report is not None and report.incarnation == node.incarnation else None


def _first_revision(deployment: deployment_pb2.Deployment) -> int:
    """The change of traffic from which on requests are counted."""
    if deployment.HasField("rollout"):
        return deployment.rollout.since_revision
    return deployment.traffic_revision


def _under_way(load: serving_pb2.DeploymentLoad) -> int:
    return load.waiting + sum(version.outstanding for version in load.versions)
