from __future__ import annotations

from lepton_ai.proto.v1 import deployment_pb2, node_pb2, task_pb2
from lepton_gateway.table import Replica, RoutedDeployment, RouteTable, build_table
from lepton_runtime import keys

NOW = 1_000.0


def deployment(name: str) -> dict[str, bytes]:
    message = deployment_pb2.Deployment(
        spec=deployment_pb2.DeploymentSpec(name=name), state=deployment_pb2.DEPLOYMENT_STATE_READY
    )
    return {keys.deployment(name): message.SerializeToString()}


def replica(
    node: str,
    *,
    attempt: int = 1,
    status_attempt: int = 1,
    state: task_pb2.TaskState = task_pb2.TASK_STATE_RUNNING,
    address: str = "10.0.0.1:9000",
) -> dict[str, bytes]:
    work = task_pb2.ReplicaTask(deployment="mnist", version=3)
    task = task_pb2.Task(id="t", node_id=node, attempt=attempt, replica=work)
    status = task_pb2.TaskStatus(
        task_id="t", node_id=node, attempt=status_attempt, state=state, address=address
    )
    return {
        keys.task(node, "t", 1): task.SerializeToString(),
        keys.task_status(node, "t"): status.SerializeToString(),
    }


def replicas_of(records: dict[str, bytes]) -> tuple[Replica, ...]:
    [found] = build_table(deployment("mnist") | records, NOW).deployments
    return found.replicas


def test_nothing_makes_an_empty_table() -> None:
    assert build_table({}, NOW) == RouteTable()


def test_running_replicas_are_routed_in_order_of_address() -> None:
    records = replica("b", address="10.0.0.2:9000") | replica("a", address="10.0.0.1:9000")
    assert replicas_of(records) == (Replica("10.0.0.1:9000", 3), Replica("10.0.0.2:9000", 3))


def test_replicas_that_leave_are_not_routed() -> None:
    message = deployment_pb2.Deployment(leaving=["a/t"], traffic_revision=3)
    message.spec.name = "mnist"
    message.traffic.add(version=3, percent=100)
    records = replica("a", address="10.0.0.1:9000") | replica("b", address="10.0.0.2:9000")
    [found] = build_table(
        {keys.deployment("mnist"): message.SerializeToString()} | records, NOW
    ).deployments
    assert found.of_version(3) == ("10.0.0.2:9000",)
    assert (found.weights, found.traffic_revision) == (((3, 100),), 3)


def test_what_sleeps_is_awake_once_envoy_reaches_it() -> None:
    deployed = RoutedDeployment("m", "READY", "", (Replica("a:1", 1),), ((1, 100),), sleeps=True)
    table = RouteTable((deployed,))
    assert table.roused(frozenset()).deployments[0].weights == ()
    assert table.roused({("m", 1)}).deployments[0].weights == ((1, 100),)


def test_a_group_of_replicas_outlives_the_routes_to_it() -> None:
    deployed = RoutedDeployment("m", "READY", "", (Replica("a:1", 1), Replica("b:1", 2)))
    before = RouteTable((deployed,))
    after = RouteTable((RoutedDeployment("m", "READY", "", (Replica("b:1", 2),)),))
    assert set(after.retiring(before.groups).groups) == set(before.groups)


def test_replicas_that_do_not_answer_yet_are_left_out() -> None:
    assert replicas_of(replica("a", state=task_pb2.TASK_STATE_STARTING)) == ()
    assert replicas_of(replica("a", address="")) == ()


def test_a_status_of_an_older_attempt_says_nothing() -> None:
    assert replicas_of(replica("a", attempt=2, status_attempt=1)) == ()


def test_a_task_without_a_status_is_left_out() -> None:
    records = replica("a")
    del records[keys.task_status("a", "t")]
    assert replicas_of(records) == ()


def test_services_are_found_by_role() -> None:
    nodes = {
        "s": node_pb2.NODE_ROLE_SCHEDULER,
        "d": node_pb2.NODE_ROLE_STORAGE,
        "w": node_pb2.NODE_ROLE_WORKER,
    }
    table = build_table(
        {
            keys.node(name): node_pb2.Node(
                id=name, role=role, address=f"{name}:1"
            ).SerializeToString()
            for name, role in nodes.items()
        },
        NOW,
    )
    assert (table.schedulers, table.storage_nodes) == (("s:1",), ("d:1",))


def test_revocations_of_expired_keys_are_left_out() -> None:
    records = {keys.revoked_key("old"): b"999", keys.revoked_key("new"): b"1001"}
    assert build_table(records, NOW).revoked_keys == ("new",)


def test_addresses_that_were_not_found_are_left_out() -> None:
    deployed = RoutedDeployment("m", "READY", "", (Replica("a:1", 1), Replica("b:1", 1)))
    table = RouteTable((deployed,), ("s:1",), ("d:1",), ("e:1",), ("key",))
    assert set(table.addresses()) == {"a:1", "b:1", "s:1", "d:1", "e:1"}
    resolved = table.resolved({"a:1": "10.0.0.1:1", "d:1": "10.0.0.2:1"})
    assert resolved.deployments[0].replicas == (Replica("10.0.0.1:1", 1),)
    assert (resolved.schedulers, resolved.storage_nodes) == ((), ("10.0.0.2:1",))
    assert resolved.revoked_keys == ("key",)
