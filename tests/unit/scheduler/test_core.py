"""Single decisions, and the reasons they give."""

from __future__ import annotations

from lepton_ai.proto.v1 import deployment_pb2, job_pb2, node_pb2, serving_pb2, storage_pb2, task_pb2
from lepton_scheduler.actions import (
    Action,
    PlaceGang,
    PlaceTask,
    RemoveTask,
    UpdateDeployment,
    UpdateJob,
    UpdateTask,
)
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
    if task.HasField("replica"):
        status.replica.CopyFrom(task.replica)
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
    assert (action.task.failures, action.task.losses) == (1, 0)


def test_a_rank_that_keeps_failing_fails_its_job_but_lost_nodes_do_not_count() -> None:
    cluster = placed(worker("w1"), worker("w2"))
    rank = next(task for task in cluster.tasks.values() if task.id == "j-1-r0")
    rank.attempt, rank.losses, rank.failures = 9, 6, 2
    say(cluster, "j-1-r0", task_pb2.TASK_STATE_FAILED, reason="the trainer died")
    action = only(decide(NOW + 60, cluster), PlaceTask)
    assert isinstance(action, PlaceTask)
    assert (action.task.attempt, action.task.failures, action.task.losses) == (10, 3, 6)
    rank.failures = 3
    (action,) = decide(NOW + 60, cluster)
    assert isinstance(action, UpdateJob)
    assert (action.job.state, action.job.reason) == (job_pb2.JOB_STATE_FAILED, "the trainer died")


def test_a_rank_that_loses_node_after_node_is_placed_ever_less_often() -> None:
    def replaced(losses: int, after_s: float) -> bool:
        cluster = placed(worker("w1"), worker("w2"), worker("w3"))
        rank = next(task for task in cluster.tasks.values() if task.id == "j-1-r0")
        rank.losses = losses
        del cluster.workers[rank.node_id]
        fresh = [a.task for a in decide(NOW + after_s, cluster) if isinstance(a, PlaceTask)]
        ids = {task.id: task for task in fresh}
        return "j-1-r0" in ids and ids["j-1-r0"].losses == losses + 1

    assert replaced(losses=0, after_s=0)  # the first loss waits for nothing
    assert not replaced(losses=1, after_s=1)
    assert replaced(losses=1, after_s=2)
    assert not replaced(losses=20, after_s=59)
    assert replaced(losses=20, after_s=60)


def test_a_stalled_rank_is_told_of_and_replaced_while_the_others_go_on() -> None:
    cluster = running(worker("w1"), worker("w2"), worker("w3"))
    node = homes(cluster)["j-1-r1"]
    say(cluster, "j-1-r1", task_pb2.TASK_STATE_STALLED, reason="no step for 16 s")
    (action,) = decide(NOW, cluster)
    assert isinstance(action, UpdateJob)
    assert action.job.state == job_pb2.JOB_STATE_RESIZING
    assert action.job.reason == f"1 of 2 ranks train; rank 1 on {node} stalls"
    cluster.jobs["j-1"] = action.job
    assert decide(NOW + 9, cluster) == []
    fresh = only(decide(NOW + 10, cluster), PlaceTask)
    assert isinstance(fresh, PlaceTask)
    assert (fresh.task.id, fresh.reason) == ("j-1-r1", "it stalled")
    assert fresh.task.failures == 1


def test_ranks_that_all_stall_are_given_more_time() -> None:
    cluster = running(worker("w1"), worker("w2"))
    for task_id in ("j-1-r0", "j-1-r1"):
        say(cluster, task_id, task_pb2.TASK_STATE_STALLED)
    (action,) = decide(NOW + 299, cluster)
    assert isinstance(action, UpdateJob)
    assert action.job.reason.startswith("0 of 2 ranks train; rank 0 on ")
    cluster.jobs["j-1"] = action.job
    assert sum(isinstance(a, PlaceTask) for a in decide(NOW + 300, cluster)) == 2
    cluster.jobs["j-1"].spec.stall_limit_s = 20
    assert sum(isinstance(a, PlaceTask) for a in decide(NOW + 20, cluster)) == 2


def test_a_job_remembers_its_steps_with_reasons_and_attempts() -> None:
    cluster = running(worker("w1", cpus=1), worker("w2", cpus=1))
    rival(cluster, ranks=2)
    evicted = next(
        a.job for a in decide(NOW, cluster) if isinstance(a, UpdateJob) and a.job.id == "j-1"
    )
    assert evicted.attempt == cluster.jobs["j-1"].attempt
    del cluster.jobs["j-2"]
    cluster.jobs["j-1"] = evicted
    cluster.tasks.clear()
    gang = only(decide(NOW + 5, cluster), PlaceGang)
    assert isinstance(gang, PlaceGang)
    assert gang.job.attempt == evicted.attempt + 1
    last = gang.job.history[-2:]
    assert [(step.state, step.reason, step.at.seconds) for step in last] == [
        (job_pb2.JOB_STATE_PREEMPTED, "job j-2 is more urgent", NOW),
        (job_pb2.JOB_STATE_PLACED, "2 ranks have a node", NOW + 5),
    ]


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


def running(*workers: node_pb2.Node, least: int = 2) -> Cluster:
    """A job of two ranks that train."""
    cluster = placed(*workers)
    job = cluster.jobs["j-1"]
    job.spec.workers.min = least
    job.state, job.reason = job_pb2.JOB_STATE_RUNNING, "2 ranks train"
    for task_id in ("j-1-lighthouse", "j-1-r0", "j-1-r1"):
        say(cluster, task_id, task_pb2.TASK_STATE_RUNNING)
    return cluster


def homes(cluster: Cluster) -> dict[str, str]:
    return {task.id: task.node_id for task in cluster.tasks.values()}


def rival(cluster: Cluster, ranks: int, priority: int = 1) -> job_pb2.Job:
    job = cluster_of(ranks=ranks).jobs["j-1"]
    job.id, job.spec.priority = "j-2", priority
    cluster.jobs["j-2"] = job
    return job


def test_a_cordoned_worker_keeps_what_it_has_and_gets_nothing() -> None:
    cluster = running(worker("w1"), worker("w2"))
    cluster.cordoned = frozenset({"w1", "w2"})
    assert decide(NOW, cluster) == []
    rival(cluster, ranks=1, priority=0)
    action = only(decide(NOW, cluster), UpdateJob)
    assert isinstance(action, UpdateJob)
    assert action.job.reason == "waits for room: 0 of 1 ranks fit now"


def test_a_drained_worker_loses_one_task_at_a_time_the_lighthouse_last() -> None:
    cluster = running(worker("w1"), worker("w2"))
    at = homes(cluster)
    cluster.workers["w3"] = worker("w3", cpus=4)
    cluster.draining = frozenset({"w1", "w2"})
    for task_id in ("j-1-r1", "j-1-r0", "j-1-lighthouse"):
        (action,) = decide(NOW, cluster)
        assert isinstance(action, PlaceTask)
        assert (action.task.id, action.task.node_id) == (task_id, "w3")
        assert action.replaces is not None
        assert action.replaces.node_id == at[task_id]
        del cluster.tasks[action.replaces.node_id, task_id]
        cluster.tasks["w3", task_id] = action.task
        # The next one moves only when this one trains.
        if task_id != "j-1-lighthouse":
            waiting = decide(NOW, cluster)
            assert not any(isinstance(a, PlaceTask) for a in waiting)
            cluster.jobs["j-1"].state = job_pb2.JOB_STATE_RUNNING
        say(cluster, task_id, task_pb2.TASK_STATE_RUNNING)
    assert decide(NOW, cluster) == []


def test_a_rank_with_nowhere_to_go_is_given_up_if_the_job_can_do_without() -> None:
    cluster = running(worker("w1", cpus=1), worker("w2", cpus=1), least=1)
    cluster.draining = frozenset({"w2"})
    if homes(cluster)["j-1-r1"] != "w2":
        cluster.draining = frozenset({"w1"})
    action = only(decide(NOW, cluster), RemoveTask)
    assert isinstance(action, RemoveTask)
    assert (action.task.id, action.reason) == ("j-1-r1", "its node is being drained")
    cluster.jobs["j-1"].spec.workers.min = 2
    assert decide(NOW, cluster) == []


def served(*workers: node_pb2.Node) -> Cluster:
    """A deployment of one replica that answers on the first worker."""
    first = workers[0]
    cluster = Cluster(workers={node.id: node for node in workers})
    cluster.models["digits", 1] = storage_pb2.Model(name="digits", version=1, onnx_object="b3")
    spec = deployment_pb2.DeploymentSpec(name="digits", model="digits", version=1, replicas=1)
    spec.resources.cpus = 1
    cluster.deployments["digits"] = deployment_pb2.Deployment(
        spec=spec, state=deployment_pb2.DEPLOYMENT_STATE_READY, ready_replicas=1
    )
    deployment = cluster.deployments["digits"]
    deployment.reason = "1 replicas answer"
    deployment.serving_version = deployment.wanted_replicas = deployment.generation = 1
    deployment.serving_spec.CopyFrom(deployment.spec)
    deployment.traffic.add(version=1, percent=100)
    task = task_pb2.Task(id="digits-v1-0", node_id=first.id, node_incarnation="1", attempt=1)
    task.replica.deployment = task.replica.model = "digits"
    task.replica.version, task.replica.object_id = 1, "b3"
    task.resources.cpus = 1
    cluster.tasks[first.id, task.id] = task
    say(cluster, task.id, task_pb2.TASK_STATE_RUNNING)
    return cluster


def test_a_replica_leaves_a_drained_worker_once_another_answers() -> None:
    cluster = served(worker("w1"), worker("w2"))
    cluster.draining = frozenset({"w1"})
    (action,) = decide(NOW, cluster)
    assert isinstance(action, PlaceTask)
    assert (action.task.node_id, action.replaces) == ("w2", None)
    cluster.tasks["w2", action.task.id] = action.task
    assert decide(NOW, cluster) == []
    status = task_pb2.TaskStatus(task_id=action.task.id, node_id="w2", attempt=1)
    status.state = task_pb2.TASK_STATE_RUNNING
    status.replica.CopyFrom(action.task.replica)
    cluster.statuses["w2", action.task.id] = status
    # First it gets no further requests; then it goes.
    (action,) = decide(NOW, cluster)
    assert isinstance(action, UpdateDeployment)
    assert list(action.deployment.leaving) == ["w1/digits-v1-0"]
    cluster.deployments["digits"] = action.deployment
    removal = only(decide(NOW, cluster), RemoveTask)
    assert isinstance(removal, RemoveTask)
    assert removal.task.node_id == "w1"


def test_what_answers_is_ready_while_its_model_has_not_been_seen() -> None:
    cluster = served(worker("w1"))
    cluster.models.clear()
    assert decide(NOW, cluster) == []


def test_replicas_change_how_they_serve_one_after_the_other() -> None:
    cluster = served(worker("w1"), worker("w2"))
    cluster.deployments["digits"].spec.replicas = 2

    def decided() -> list[task_pb2.Task]:
        changed: list[task_pb2.Task] = []
        for action in decide(NOW, cluster):
            match action:
                case UpdateDeployment(deployment=deployment):
                    cluster.deployments["digits"] = deployment
                case UpdateTask(task=task):
                    cluster.tasks[task.node_id, task.id] = task
                    changed.append(task)
                case PlaceTask(task=task):
                    cluster.tasks[task.node_id, task.id] = task
                    say(cluster, task.id, task_pb2.TASK_STATE_RUNNING)
                case _:
                    raise AssertionError(action)
        return changed

    decided()
    decided()
    assert cluster.deployments["digits"].state == deployment_pb2.DEPLOYMENT_STATE_READY
    cluster.deployments["digits"].spec.options.max_batch_size = 4
    (first,) = decided()
    assert first.replica.options.max_batch_size == 4
    assert first.attempt == 1  # it is the same placement
    assert decided() == []
    assert cluster.deployments["digits"].reason == "0 of 2 replicas serve in the new way"
    say(cluster, first.id, task_pb2.TASK_STATE_RUNNING)
    (second,) = decided()
    assert second.id != first.id
    # It cannot: it says so, and serves as before.
    before = cluster.statuses[second.node_id, second.id].replica
    cluster.statuses[second.node_id, second.id].reason = "no room"
    assert before != second.replica
    assert decided() == []
    assert cluster.deployments["digits"].state == deployment_pb2.DEPLOYMENT_STATE_FAILED
    assert cluster.deployments["digits"].reason == "served as before: no room"
    say(cluster, second.id, task_pb2.TASK_STATE_RUNNING)
    assert decided() == []
    assert cluster.deployments["digits"].state == deployment_pb2.DEPLOYMENT_STATE_READY


def test_replicas_are_announced_when_every_gateway_knows_them() -> None:
    cluster = served(worker("w1"), worker("w2"))
    cluster.gateways["g"] = node_pb2.Node(id="g", incarnation="1")
    deployment = cluster.deployments["digits"]
    deployment.spec.replicas = 2

    def announced(healthy: int) -> int:
        report = serving_pb2.ServingReport(node_id="g", incarnation="1")
        known = serving_pb2.VersionLoad(version=1, healthy=healthy)
        report.deployments.add(name="digits", versions=[known])
        cluster.measures.add(NOW, report)
        for action in decide(NOW, cluster):
            if isinstance(action, UpdateDeployment):
                cluster.deployments["digits"] = action.deployment
            elif isinstance(action, PlaceTask):
                cluster.tasks[action.task.node_id, action.task.id] = action.task
                say(cluster, action.task.id, task_pb2.TASK_STATE_RUNNING)
        return cluster.deployments["digits"].state

    announced(1)
    assert announced(1) == deployment_pb2.DEPLOYMENT_STATE_PROGRESSING
    assert "not all of which every gateway knows" in cluster.deployments["digits"].reason
    assert announced(2) == deployment_pb2.DEPLOYMENT_STATE_READY
    # What was announced stays so while a gateway thinks little of a replica for a moment.
    assert announced(1) == deployment_pb2.DEPLOYMENT_STATE_READY


def test_a_replica_stays_on_a_drained_worker_while_no_other_has_room() -> None:
    cluster = served(worker("w1"), worker("w2", cpus=0.5))
    cluster.draining = frozenset({"w1"})
    assert decide(NOW, cluster) == []


def test_a_more_urgent_job_takes_ranks_that_another_can_do_without() -> None:
    cluster = running(worker("w1", cpus=1), worker("w2", cpus=1), least=1)
    rival(cluster, ranks=1)
    actions = decide(NOW, cluster)
    removal = only(actions, RemoveTask)
    assert isinstance(removal, RemoveTask)
    assert (removal.task.id, removal.reason) == ("j-1-r1", "job j-2 is more urgent")
    del cluster.tasks[removal.task.node_id, "j-1-r1"]
    gang = only(decide(NOW, cluster), PlaceGang)
    assert isinstance(gang, PlaceGang)
    assert gang.job.id == "j-2"
    # What it shrank by is not given back while the other has it.
    cluster.jobs["j-2"] = gang.job
    cluster.tasks |= {(task.node_id, task.id): task for task in gang.tasks}
    assert not any(isinstance(a, PlaceTask) for a in decide(NOW, cluster))


def test_a_job_that_fits_takes_nothing_from_others() -> None:
    cluster = running(worker("w1"), worker("w2"), least=1)
    rival(cluster, ranks=2)
    (gang,) = decide(NOW, cluster)
    assert isinstance(gang, PlaceGang)


def test_a_job_is_evicted_when_shrinking_does_not_do() -> None:
    cluster = running(worker("w1", cpus=1), worker("w2", cpus=1))
    rival(cluster, ranks=2)
    actions = decide(NOW, cluster)
    moved = {a.job.id: a.job.state for a in actions if isinstance(a, UpdateJob)}
    assert moved["j-1"] == job_pb2.JOB_STATE_PREEMPTED
    gone = {a.task.id for a in actions if isinstance(a, RemoveTask)}
    assert gone == {"j-1-lighthouse", "j-1-r0", "j-1-r1"}


def test_an_interrupted_eviction_is_finished() -> None:
    cluster = running(worker("w1"), worker("w2"))
    cluster.jobs["j-1"].state = job_pb2.JOB_STATE_PREEMPTED
    actions = decide(NOW, cluster)
    assert [type(action) for action in actions] == [RemoveTask] * 3


def test_nobody_is_evicted_in_vain_or_by_an_equal() -> None:
    cluster = running(worker("w1", cpus=1), worker("w2", cpus=1))
    rival(cluster, ranks=3)
    assert not any(isinstance(a, RemoveTask) for a in decide(NOW, cluster))
    rival(cluster, ranks=2, priority=0)
    assert not any(isinstance(a, RemoveTask) for a in decide(NOW, cluster))


def test_serving_borrows_a_rank_that_training_can_do_without() -> None:
    cluster = running(worker("w1", cpus=1), worker("w2", cpus=1), least=1)
    cluster.models["digits", 1] = storage_pb2.Model(name="digits", version=1, onnx_object="b3")
    spec = deployment_pb2.DeploymentSpec(name="digits", model="digits", version=1, replicas=1)
    spec.resources.cpus = 1
    cluster.deployments["digits"] = deployment_pb2.Deployment(spec=spec)
    removal = only(decide(NOW, cluster), RemoveTask)
    assert isinstance(removal, RemoveTask)
    assert removal.reason == "serving needs its place"
    del cluster.tasks[removal.task.node_id, removal.task.id]
    replica = only(decide(NOW, cluster), PlaceTask)
    assert isinstance(replica, PlaceTask)
    assert replica.task.HasField("replica")
    # A worker without the wanted labels is no place for it.
    cluster.tasks[removal.task.node_id, removal.task.id] = removal.task
    cluster.deployments["digits"].spec.labels["zone"] = "b"
    assert not any(isinstance(a, RemoveTask | PlaceTask) for a in decide(NOW, cluster))
    cluster.workers[removal.task.node_id].labels["zone"] = "b"
    assert only(decide(NOW, cluster), RemoveTask) == removal
    # At its minimum it lends nothing.
    cluster = running(worker("w1", cpus=1), worker("w2", cpus=1))
    cluster.deployments["digits"] = deployment_pb2.Deployment(spec=spec)
    cluster.models["digits", 1] = storage_pb2.Model(name="digits", version=1, onnx_object="b3")
    assert not any(isinstance(a, RemoveTask) for a in decide(NOW, cluster))


def test_an_ensemble_waits_for_its_models_and_carries_their_objects() -> None:
    cluster = served(worker("w1"))
    cluster.tasks.clear()
    spec = cluster.deployments["digits"].spec
    spec.before.add(model="resize", version=2)
    spec.after.add(model="names", version=1, inputs={"scores": "probabilities"})
    spec.options.cache_bytes = 7
    assert not [action for action in decide(NOW, cluster) if isinstance(action, PlaceTask)]
    for name, version in (("resize", 2), ("names", 1)):
        model = storage_pb2.Model(name=name, version=version, onnx_object=f"b3-{name}")
        cluster.models[name, version] = model
    placed = only(decide(NOW, cluster), PlaceTask)
    assert isinstance(placed, PlaceTask)
    replica = placed.task.replica
    assert [step.object_id for step in replica.steps] == ["b3-resize", "b3", "b3-names"]
    assert dict(replica.steps[2].inputs) == {"scores": "probabilities"}
    assert replica.options.cache_bytes == 7


def test_a_variant_is_served_in_place_of_the_model() -> None:
    cluster = served(worker("w1"))
    cluster.tasks.clear()
    cluster.models["digits", 1].variants.add(kind="int8", onnx_object="b3-8")
    cluster.deployments["digits"].spec.variant = "int8"
    placed = only(decide(NOW, cluster), PlaceTask)
    assert isinstance(placed, PlaceTask)
    assert placed.task.replica.object_id == "b3-8"
