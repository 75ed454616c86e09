"""Where requests go: what the gateway makes of the cluster's records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from lepton_ai.proto.v1 import deployment_pb2, node_pb2, task_pb2
from lepton_runtime import keys

__all__ = ["Replica", "RouteTable", "RoutedDeployment", "build_table"]


@dataclass(frozen=True, order=True)
class Replica:
    """One copy of a model that answers.

    Args:
        address: host:port of the inference server that has it loaded.
        version: The model's version.
    """

    address: str
    version: int


@dataclass(frozen=True, order=True)
class RoutedDeployment:
    """A deployment as clients see it.

    Args:
        name: What clients call the model.
        state: Of the deployment as a whole, such as "READY".
        reason: Why it is in this state; may be empty.
        replicas: Those that answer, in order of their addresses.
    """

    name: str
    state: str
    reason: str = ""
    replicas: tuple[Replica, ...] = ()


@dataclass(frozen=True)
class RouteTable:
    """Everything that routing depends on. Equal tables render to equal configurations.

    Args:
        deployments: In order of their names.
        schedulers: host:port of each, sorted.
        storage_nodes: host:port of each, sorted.
        data_nodes: host:port of the data plane of each, sorted.
        revoked_keys: Ids of keys that are refused although they have not expired, sorted.
    """

    deployments: tuple[RoutedDeployment, ...] = ()
    schedulers: tuple[str, ...] = ()
    storage_nodes: tuple[str, ...] = ()
    data_nodes: tuple[str, ...] = ()
    revoked_keys: tuple[str, ...] = ()

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
    deployment: deployment_pb2.Deployment, replicas: Mapping[str, set[Replica]]
) -> RoutedDeployment:
    name = deployment.spec.name
    state = deployment_pb2.DeploymentState.Name(deployment.state)
    return RoutedDeployment(
        name,
        state.removeprefix("DEPLOYMENT_STATE_"),
        deployment.reason,
        tuple(sorted(replicas.get(name, ()))),
    )


def _replicas(records: Mapping[str, bytes]) -> Mapping[str, set[Replica]]:
    """The replicas that answer, by deployment. A status of an older attempt says nothing."""
    found: dict[str, set[Replica]] = defaultdict(set)
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
            found[task.replica.deployment].add(Replica(status.address, task.replica.version))
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
