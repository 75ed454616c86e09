"""Who comes first: tenants share fairly, nobody waits for ever, and labels are kept to."""

from __future__ import annotations

import pytest

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_scheduler.actions import PlaceGang, RemoveTask, UpdateJob
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.core import decide
from lepton_scheduler.placement import Rooms
from lepton_scheduler.shares import Shares
from lepton_scheduler.submission import check_job

NOW = 10_000.0


def worker(name: str, cpus: float = 1, gpus: int = 0, **labels: str) -> node_pb2.Node:
    capacity = node_pb2.Resources(cpus=cpus, gpus=gpus)
    return node_pb2.Node(id=name, incarnation="1", capacity=capacity, labels=labels)


def job(name: str, tenant: str, ranks: int = 1, most: int = 0, age_s: float = 0) -> job_pb2.Job:
    made = job_pb2.Job(id=name, tenant=tenant, state=job_pb2.JOB_STATE_QUEUED, attempt=1)
    made.spec.workers.min, made.spec.workers.max = ranks, most or ranks
    made.spec.resources.cpus = 1
    made.spec.train.SetInParent()
    made.created_at.FromSeconds(int(NOW - age_s))
    return made


def cluster_of(workers: list[node_pb2.Node], jobs: list[job_pb2.Job]) -> Cluster:
    return Cluster(
        workers={node.id: node for node in workers}, jobs={entry.id: entry for entry in jobs}
    )


def place(cluster: Cluster, now: float = NOW) -> list[str]:
    """Ids of jobs that are placed, in order; they then train."""
    placed: list[str] = []
    for action in decide(now, cluster):
        if isinstance(action, PlaceGang):
            placed.append(action.job.id)
            action.job.state = job_pb2.JOB_STATE_RUNNING
            cluster.jobs[action.job.id] = action.job
            cluster.tasks |= {(task.node_id, task.id): task for task in action.tasks}
        elif isinstance(action, UpdateJob):
            cluster.jobs[action.job.id] = action.job
    return placed


def test_the_tenant_with_the_smallest_share_comes_next_also_within_one_decision() -> None:
    jobs = [job(f"a{i}", "a", age_s=50 - i) for i in range(4)] + [job("b0", "b"), job("b1", "b")]
    cluster = cluster_of([worker(f"w{i}") for i in range(4)], jobs)
    assert place(cluster) == ["a0", "b0", "a1", "b1"]


def test_a_share_is_that_of_the_scarcest_resource() -> None:
    cluster = cluster_of([worker("w", cpus=10, gpus=2)], [])
    shares = Shares(cluster)
    shares.add("a", [task_pb2.Task(resources=node_pb2.Resources(cpus=1, gpus=1))])
    shares.add("b", [task_pb2.Task(resources=node_pb2.Resources(cpus=4))])
    assert (shares.of("a"), shares.of("b"), shares.of("c")) == (0.5, 0.4, 0.0)


def test_an_equal_of_another_tenant_gets_what_a_job_can_do_without() -> None:
    workers = [worker("w1"), worker("w2")]
    cluster = cluster_of(workers, [job("a0", "a", most=2)])
    assert place(cluster) == ["a0"]
    cluster.jobs["b0"] = job("b0", "b")
    (removal,) = [a for a in decide(NOW, cluster) if isinstance(a, RemoveTask)]
    assert (removal.task.id, removal.reason) == ("a0-r1", "job b0 waits, of another tenant")
    del cluster.tasks[removal.task.node_id, removal.task.id]
    assert place(cluster) == ["b0"]
    # But it is not evicted, and nobody of the same tenant takes anything from it.
    cluster.jobs["b1"] = job("b1", "b")
    cluster.jobs["c0"] = job("c0", "c")
    assert not [a for a in decide(NOW, cluster) if isinstance(a, RemoveTask)]


def test_a_big_job_does_not_starve_behind_small_ones() -> None:
    workers = [worker("w1"), worker("w2"), worker("w3")]
    cluster = cluster_of(workers, [job("s1", "a"), job("s2", "a")])
    assert place(cluster) == ["s1", "s2"]
    cluster.jobs["big"] = job("big", "a", ranks=2, age_s=30)
    cluster.jobs["s3"] = job("s3", "a")
    assert place(cluster) == ["s3"]  # for a while small ones fill the gaps
    for number in range(4, 8):
        _end(cluster, f"s{number - 3}")
        cluster.jobs[f"s{number}"] = job(f"s{number}", "a", age_s=-99)
        placed = place(cluster, NOW + 100)
        if "big" in placed:
            break
    assert number == 5  # what came free was kept for it


def _end(cluster: Cluster, name: str) -> None:
    cluster.jobs.pop(name)
    for key in [key for key, task in cluster.tasks.items() if task.id.startswith(f"{name}-")]:
        del cluster.tasks[key]


def test_what_the_cluster_never_has_reserves_nothing() -> None:
    cluster = cluster_of([worker("w1")], [job("big", "a", ranks=2, age_s=100), job("s1", "a")])
    assert place(cluster) == ["s1"]


def test_ranks_go_where_the_labels_are() -> None:
    workers = [worker("w1", zone="a"), worker("w2", zone="b"), worker("w3", zone="b", gpu="h100")]
    labelled = job("j", "a", ranks=2)
    labelled.spec.labels["zone"] = "b"
    cluster = cluster_of(workers, [labelled])
    assert place(cluster) == ["j"]
    ranks = {t.node_id for t in cluster.tasks.values() if t.HasField("trainer")}
    assert ranks == {"w2", "w3"}
    # A lost rank waits for a node of its kind.
    del cluster.workers["w2"]
    fresh = [a.task for a in decide(NOW, cluster) if hasattr(a, "replaces")]
    assert [task.id for task in fresh] in ([], ["j-lighthouse"])


def test_rooms_keep_every_set_of_labels_up_to_date() -> None:
    need = node_pb2.Resources(cpus=1)
    rooms = Rooms({"w1": worker("w1", zone="a"), "w2": worker("w2")}, [])
    assert rooms.choose(need, {}, {"zone": "a"}) == "w1"
    rooms.take("w1", need)
    assert rooms.choose(need, {}, {"zone": "a"}) is None
    assert rooms.choose(need, {}) == "w2"
    rooms.give_back("w1", need)
    assert rooms.choose(need, {}, {"zone": "a"}) == "w1"
    rooms.close("w1")
    assert rooms.choose(need, {}, {"zone": "a"}) is None


def test_labels_that_no_worker_has_are_refused() -> None:
    spec = job("j", "a").spec
    spec.labels["zone"] = "c"
    with pytest.raises(InvalidArgumentError, match="no worker is labelled zone=c") as refused:
        check_job(spec, [worker("w1", zone="a")])
    assert refused.value.hint == "labels: zone=a"
