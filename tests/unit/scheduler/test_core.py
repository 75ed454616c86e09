"""Single decisions, and the reasons they give."""

from __future__ import annotations

from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_scheduler.actions import Action, PlaceGang, PlaceTask, UpdateJob, UpdateTask
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.core import decide

NOW = 1_000.0


def worker(name: str, cpus: float = 2) -> node_pb2.Node:
    return node_pb2.Node(id=name, incarnation="1", capacity=node_pb2.Resources(cpus=cpus))


def cluster_of(*workers: node_pb2.Node, ranks: int = 2) -> Cluster:
    job = job_pb2.Job(id="j-1", state=job_pb2.JOB_STATE_QUEUED)
    job.spec.workers.min = job.spec.workers.max = ranks
    job.spec.resources.cpus = 1
    job.spec.train.SetInParent()
    return Cluster(workers={node.id: node for node in workers}, jobs={job.id: job})


def placed(*workers: node_pb2.Node) -> Cluster:
    cluster = cluster_of(*workers)
    (gang,) = decide(NOW, cluster)
    assert isinstance(gang, PlaceGang)
    cluster.jobs["j-1"] = gang.job
    cluster.tasks = {(task.node_id, task.id): task for task in gang.tasks}
    return cluster


def say(cluster: Cluster, task_id: str, state: task_pb2.TaskState, **more: object) -> None:
    task = next(task for task in cluster.tasks.values() if task.id == task_id)
    status = task_pb2.TaskStatus(
        task_id=task_id,
        node_id=task.node_id,
        attempt=task.attempt,
        state=state,
        **more,  # pyright: ignore
    )
    status.updated_at.FromSeconds(int(NOW))
    cluster.statuses[task.node_id, task_id] = status


def only(actions: list[Action], kind: type[Action]) -> Action:
    (action,) = [action for action in actions if isinstance(action, kind)]
    return action


def test_ranks_are_spread_over_workers() -> None:
    cluster = placed(worker("w1"), worker("w2"))
    homes = {task.node_id for task in cluster.tasks.values() if task.HasField("trainer")}
    assert homes == {"w1", "w2"}
    assert {task.id for task in cluster.tasks.values()} == {"j-1-lighthouse", "j-1-r0", "j-1-r1"}


def test_a_job_that_does_not_fit_waits_and_says_for_what() -> None:
    cluster = cluster_of(worker("w1", cpus=1))
    (action,) = decide(NOW, cluster)
    assert isinstance(action, UpdateJob)
    assert action.job.state == job_pb2.JOB_STATE_QUEUED
    assert action.job.reason == "waits for room: 1 of 2 ranks fit now"
    cluster.jobs["j-1"] = action.job
    assert decide(NOW, cluster) == []


def test_a_job_grows_when_there_is_room_but_never_before_one_that_waits() -> None:
    cluster = placed(worker("w1", cpus=1), worker("w2", cpus=1))
    job = cluster.jobs["j-1"]
    job.spec.workers.min, job.spec.workers.max = 1, 3
    job.state, job.reason = job_pb2.JOB_STATE_RUNNING, "2 ranks train"
    for rank in range(2):
        say(cluster, f"j-1-r{rank}", task_pb2.TASK_STATE_RUNNING)
    assert decide(NOW, cluster) == []
    cluster.workers["w3"] = worker("w3", cpus=1)
    (action,) = decide(NOW, cluster)
    assert isinstance(action, PlaceTask)
    assert (action.task.id, action.task.node_id, action.replaces) == ("j-1-r2", "w3", None)
    waiting = cluster_of(ranks=1).jobs["j-1"]
    waiting.id = "j-2"
    cluster.jobs["j-2"] = waiting
    (gang,) = decide(NOW, cluster)
    assert isinstance(gang, PlaceGang)
    assert gang.job.id == "j-2"


def test_the_lowest_trained_rank_publishes() -> None:
    cluster = placed(worker("w1"), worker("w2"))
    for task_id in ("j-1-r1", "j-1-r0"):
        say(cluster, task_id, task_pb2.TASK_STATE_TRAINED)
    action = only(decide(NOW, cluster), UpdateTask)
    assert isinstance(action, UpdateTask)
    assert (action.task.id, action.task.trainer.publish) == ("j-1-r0", True)


def test_a_lost_publisher_comes_back_as_an_ordinary_rank() -> None:
    cluster = placed(worker("w1"), worker("w2"), worker("w3"))
    publisher = next(t for t in cluster.tasks.values() if t.id == "j-1-r0")
    publisher.trainer.publish = True
    say(cluster, "j-1-r1", task_pb2.TASK_STATE_RUNNING)
    del cluster.workers[publisher.node_id]
    fresh = [a.task for a in decide(NOW, cluster) if isinstance(a, PlaceTask)]
    (rank,) = [task for task in fresh if task.id == "j-1-r0"]
    assert (rank.attempt, rank.trainer.publish) == (2, False)
    assert rank.node_id in cluster.workers


def test_a_rank_that_failed_is_tried_again_after_a_while() -> None:
    cluster = placed(worker("w1"), worker("w2"))
    say(cluster, "j-1-r0", task_pb2.TASK_STATE_FAILED)
    assert not any(isinstance(a, PlaceTask) for a in decide(NOW, cluster))
    action = only(decide(NOW + 2, cluster), PlaceTask)
    assert isinstance(action, PlaceTask)
    assert (action.task.id, action.task.attempt, action.reason) == ("j-1-r0", 2, "it failed")


def test_an_error_of_the_user_ends_the_job_with_its_reason() -> None:
    cluster = placed(worker("w1"), worker("w2"))
    failed = task_pb2.TASK_STATE_FAILED
    say(cluster, "j-1-r1", failed, user_error=True, reason="ValueError: no such class")
    (action,) = decide(NOW, cluster)
    assert isinstance(action, UpdateJob)
    assert action.job.state == job_pb2.JOB_STATE_FAILED
    assert action.job.reason == "ValueError: no such class"


def test_a_status_of_an_older_attempt_is_ignored() -> None:
    cluster = placed(worker("w1"), worker("w2"))
    say(cluster, "j-1-r0", task_pb2.TASK_STATE_SUCCEEDED)
    for task in cluster.tasks.values():
        task.attempt = 2
    assert decide(NOW, cluster) == []


def test_a_job_past_its_time_fails() -> None:
    cluster = placed(worker("w1"), worker("w2"))
    job = cluster.jobs["j-1"]
    job.spec.time_limit_s = 10
    job.started_at.FromSeconds(int(NOW))
    assert decide(NOW + 10, cluster) == []
    (action,) = decide(NOW + 11, cluster)
    assert isinstance(action, UpdateJob)
    assert action.job.reason == "its time limit has passed"
