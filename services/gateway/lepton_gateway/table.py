"""Where requests go: what the gateway makes of the cluster's records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from lepton_ai.proto.v1 import deployment_pb2, node_pb2, task_pb2
from lepton_runtime import keys

__all__ = ["Group", "Replica", "RouteTable", "RoutedDeployment", "Shadow", "build_table"]


@dataclass(frozen=True, order=True)
class Replica:
    """One copy of a model that answers.

    Args:
        address: host:port of the inference server that has it loaded.
        version: The model's version.
    """

    address: str
    version: int


class Shadow(NamedTuple):
    """A version whose answers are compared with another's.

    Args:
        version: It.
        beside: The other.
        percent: Of the requests that name no version.
        tolerance: By how much fractions may differ.
    """

    version: int
    beside: int
    percent: int
    tolerance: float


class Group(NamedTuple):
    """Replicas that can stand in for each other.

    Args:
        name: Of the deployment.
        version: Theirs.
        addresses: host:port of each.
    """

    name: str
    version: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, order=True)
class RoutedDeployment:
    """A deployment as clients see it.

    Args:
        name: What clients call the model.
        state: Of the deployment as a whole, such as "READY".
        reason: Why it is in this state; may be empty.
        replicas: Those that answer, in order of their addresses.
        traffic: Versions and their shares of the requests that name none, in percent.
        traffic_revision: The change of the deployment's traffic that this is.
        sleeps: Whether it has no replica while nobody asks, and gets one when somebody does.
        hedge_after_s: Seconds after which a request goes to another replica too; 0 for never.
        awake: Whether a request would be answered; where it sleeps that is waited for.
        shadow: What is mirrored; None for nothing.
    """

    name: str
    state: str
    reason: str = ""
    replicas: tuple[Replica, ...] = ()
    traffic: tuple[tuple[int, int], ...] = ()
    traffic_revision: int = 0
    sleeps: bool = False
    hedge_after_s: float = 0.0
    awake: bool = True
    shadow: Shadow | None = None

    @property
    def versions(self) -> tuple[int, ...]:
        """Versions with a replica that answers, lowest first."""
        return tuple(sorted({replica.version for replica in self.replicas}))

    @property
    def weights(self) -> tuple[tuple[int, int], ...]:
        """Versions that answer and their weights in what is sent to the deployment."""
        there = self.versions if self.awake else ()
        return tuple((version, share) for version, share in self.traffic if version in there)

    def of_version(self, version: int) -> tuple[str, ...]:
        """Addresses of a version's replicas."""
        return tuple(one.address for one in self.replicas if one.version == version)


@dataclass(frozen=True)
class RouteTable:
    """Everything that routing depends on. Equal tables render to equal configurations.

    Args:
        deployments: In order of their names.
        schedulers: host:port of each, sorted.
        storage_nodes: host:port of each, sorted.
        data_nodes: host:port of the data plane of each, sorted.
        revoked_keys: Ids of keys that are refused although they have not expired, sorted.
        retired: Groups that no route leads to any more.
    """

    deployments: tuple[RoutedDeployment, ...] = ()
    schedulers: tuple[str, ...] = ()
    storage_nodes: tuple[str, ...] = ()
    data_nodes: tuple[str, ...] = ()
    revoked_keys: tuple[str, ...] = ()
    retired: tuple[Group, ...] = ()

    @property
    def groups(self) -> tuple[Group, ...]:
        """The replicas of each version of each deployment, and those that were until just now.

        Envoy takes up routes last: it must not lose a group that a route still leads to.
        """
        there = tuple(
            Group(one.name, version, one.of_version(version))
            for one in self.deployments
            for version in one.versions
        )
        return there + self.retired

    def shadow_of(self, name: str) -> Shadow | None:
        """What is mirrored of the requests to a deployment; None for nothing."""
        return next((one.shadow for one in self.deployments if one.name == name), None)

    def retiring(self, before: Iterable[Group]) -> RouteTable:
        """The same table, with the groups of `before` that it does not have itself."""
        there = {(group.name, group.version) for group in self.groups}
        gone = (group for group in before if (group.name, group.version) not in there)
        return replace(self, retired=tuple(gone))

    def resolved(self, found: Mapping[str, str]) -> RouteTable:
        """The same table with `found` in place of its addresses, less those it does not have."""
        return RouteTable(
            tuple(
                replace(
                    deployment,
                    replicas=tuple(
                        replace(replica, address=found[replica.address])
                        for replica in deployment.replicas
                        if replica.address in found
                    ),
                )
                for deployment in self.deployments
            ),
            tuple(found[address] for address in self.schedulers if address in found),
            tuple(found[address] for address in self.storage_nodes if address in found),
            tuple(found[address] for address in self.data_nodes if address in found),
            self.revoked_keys,
        )

    def roused(self, warm: Set[tuple[str, int]]) -> RouteTable:
        """The same table, where deployments that sleep are awake once Envoy reaches a replica.

        Args:
            warm: Deployments and versions with a replica that Envoy knows to be well.
        """
        return replace(
            self,
            deployments=tuple(
                replace(one, awake=any((one.name, version) in warm for version in one.versions))
                if one.sleeps
                else one
                for one in self.deployments
            ),
        )

    def addresses(self) -> Iterable[str]:
        """Every host:port of the table."""
        yield from self.schedulers
        yield from self.storage_nodes
        yield from self.data_nodes
        for deployment in self.deployments:
            yield from (replica.address for replica in deployment.replicas)


def build_table(records: Mapping[str, bytes], now: float) -> RouteTable:
    """What the cluster's records say of routing.

    Nodes that stopped renewing their lease have no record. Replicas are not dropped with their
    node's record: Envoy's own checks see a dead one sooner, and a short absence of records must
    not take a healthy replica out of service.

    Args:
        records: Keys and values of nodes, deployments, tasks, task statuses and revoked keys.
        now: Unix time; revocations of keys that have expired since are left out.
    """
    nodes = [
        node_pb2.Node.FromString(value)
        for key, value in records.items()
        if key.startswith(keys.NODES)
    ]
    replicas = _replicas(records)
    return RouteTable(
        tuple(
            sorted(
                _routed(deployment_pb2.Deployment.FromString(value), replicas)
                for key, value in records.items()
                if key.startswith(keys.DEPLOYMENTS)
            )
        ),
        _addresses(nodes, node_pb2.NODE_ROLE_SCHEDULER),
        _addresses(nodes, node_pb2.NODE_ROLE_STORAGE),
        tuple(sorted({node.data_address for node in nodes if node.data_address})),
        _revoked(records, now),
    )


def _routed(
    deployment: deployment_pb2.Deployment, replicas: Mapping[str, Mapping[str, Replica]]
) -> RoutedDeployment:
    name = deployment.spec.name
    state = deployment_pb2.DeploymentState.Name(deployment.state)
    answering = replicas.get(name, {})
    return RoutedDeployment(
        name,
        state.removeprefix("DEPLOYMENT_STATE_"),
        deployment.reason,
        tuple(sorted({answering[key] for key in answering.keys() - set(deployment.leaving)})),
        tuple((share.version, share.percent) for share in deployment.traffic),
        deployment.traffic_revision,
        deployment.spec.HasField("scale") and not deployment.spec.scale.min_replicas,
        deployment.spec.hedge_after_s,
        shadow=_shadow(deployment),
    )


def _shadow(deployment: deployment_pb2.Deployment) -> Shadow | None:
    if not deployment.HasField("shadow"):
        return None
    one = deployment.shadow
    return Shadow(one.version, one.beside, one.percent, one.tolerance)


def _replicas(records: Mapping[str, bytes]) -> Mapping[str, dict[str, Replica]]:
    """Those that answer, by deployment and task. A status of an older attempt says nothing."""
    found: dict[str, dict[str, Replica]] = defaultdict(dict)
    for key, value in records.items():
        if not key.startswith(keys.TASKS):
            continue
        task = task_pb2.Task.FromString(value)
        if not task.HasField("replica"):
            continue
        status = task_pb2.TaskStatus.FromString(
            records.get(keys.task_status(task.node_id, task.id), b"")
        )
        running = status.state == task_pb2.TASK_STATE_RUNNING and status.attempt == task.attempt
        if running and status.address:
            replica = Replica(status.address, task.replica.version)
            found[task.replica.deployment][f"{task.node_id}/{task.id}"] = replica
    return found


def _addresses(nodes: Iterable[node_pb2.Node], role: node_pb2.NodeRole) -> tuple[str, ...]:
    return tuple(sorted({node.address for node in nodes if node.role == role and node.address}))


def _revoked(records: Mapping[str, bytes], now: float) -> tuple[str, ...]:
    return tuple(
        sorted(
            key.removeprefix(keys.REVOKED_KEYS)
            for key, value in records.items()
            if key.startswith(keys.REVOKED_KEYS) and float(value or b"0") > now
        )
    )
