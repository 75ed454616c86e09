"""How versions take over, step by step, and what makes one worse than another."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from lepton_ai.proto.v1 import deployment_pb2, node_pb2, serving_pb2, task_pb2
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.comparison import compare, disagreement
from lepton_scheduler.measures import Count
from lepton_scheduler.rollout import Standing, roll
from lepton_scheduler.scaling import wanted_replicas

READY = Standing(ready=1)


@dataclass
class Scene:
    """A deployment at version 1 that asks for version 2, and a gateway that reports."""

    now: float = 1_000.0
    cluster: Cluster = field(default_factory=Cluster)
    deployment: deployment_pb2.Deployment = field(default_factory=deployment_pb2.Deployment)
    standings: dict[int, Standing] = field(default_factory=lambda: {1: READY})

    def __post_init__(self) -> None:
        self.cluster.gateways["g"] = node_pb2.Node(id="g", incarnation="1")
        one = self.deployment
        one.spec.name, one.spec.version, one.generation = "m", 2, 2
        one.serving_version = one.wanted_replicas = 1
        one.traffic.add(version=1, percent=100)

    def roll(self) -> list[tuple[int, int]]:
        """One decision; answers the traffic by version."""
        roll(self.now, self.cluster, self.deployment, self.standings)
        return [(share.version, share.percent) for share in self.deployment.traffic]

    def report(self, *loads: serving_pb2.VersionLoad, waiting: int = 0) -> None:
        """A second passes, and the gateway has done what it was told."""
        self.now += 1
        report = serving_pb2.ServingReport(node_id="g", incarnation="1")
        load = report.deployments.add(name="m", waiting=waiting, versions=loads)
        load.traffic_revision = self.deployment.traffic_revision
        self.cluster.measures.add(self.now, report)

    def compare(self, rows: int, agreed: int) -> None:
        """Rows of a second that both versions were asked, beside 500 requests to version 1."""
        self.report(
            serving_pb2.VersionLoad(version=1, healthy=1, requests=500, seconds=5.0),
            serving_pb2.VersionLoad(
                version=2, healthy=1, compared_rows=rows, agreed_rows=agreed, dropped=1
            ),
        )

    def ask(self, new: int, errors: int = 0, seconds: float = 0.0) -> None:
        """Requests of a second to version 2, beside 500 to version 1."""
        self.report(
            serving_pb2.VersionLoad(version=1, healthy=1, requests=500, seconds=5.0),
            serving_pb2.VersionLoad(
                version=2, healthy=1, requests=new, errors=errors, seconds=seconds
            ),
        )


def started() -> Scene:
    """Version 2 gets its first share."""
    scene = Scene()
    for _ in range(3):
        scene.ask(0)
        assert scene.roll() == [(1, 100)]
    scene.standings[2] = READY
    assert scene.roll() == [(1, 99), (2, 1)]
    return scene


def test_a_version_gets_nothing_before_its_replicas_and_the_gateways_say_so() -> None:
    scene = Scene()
    scene.roll()
    scene.standings[2] = READY
    for _ in range(3):
        scene.report(serving_pb2.VersionLoad(version=1, healthy=1, requests=9))
        assert scene.roll() == [(1, 100)]
    scene.ask(0)
    assert scene.roll() == [(1, 99), (2, 1)]


def test_stages_last_their_time_or_their_number_of_requests() -> None:
    scene = started()
    for _ in range(9):
        scene.ask(3)
        assert scene.roll() == [(1, 99), (2, 1)]
    scene.ask(3)
    assert scene.roll() == [(1, 90), (2, 10)]
    for stage in ([(1, 50), (2, 50)], [(2, 100)]):
        scene.ask(60)
        scene.roll()
        scene.ask(60)
        assert scene.roll() == stage
    assert scene.deployment.serving_version == 1
    scene.ask(200)
    scene.ask(200)
    assert scene.roll() == [(2, 100)]
    assert scene.deployment.serving_version == 2
    assert not scene.deployment.HasField("rollout")


def test_a_stage_is_not_over_before_every_gateway_carries_it_out() -> None:
    scene = started()
    revision = scene.deployment.traffic_revision
    scene.deployment.traffic_revision = revision - 1
    scene.ask(500)
    scene.deployment.traffic_revision = revision
    scene.now += 60
    assert scene.roll() == [(1, 99), (2, 1)]


def test_nobody_waits_where_nobody_asks() -> None:
    scene = Scene()
    scene.standings[2] = READY
    scene.roll()
    for _ in range(3):
        scene.report(*(serving_pb2.VersionLoad(version=v, healthy=1) for v in (1, 2)))
    assert scene.roll() == [(2, 100)]
    assert scene.deployment.serving_version == 2


def test_a_version_that_fails_is_rolled_back_until_another_is_asked_for() -> None:
    scene = started()
    scene.ask(5, errors=4)
    assert scene.roll() == [(1, 100)]
    assert scene.deployment.rejected_reason == (
        "version 2 was rolled back at 1 %: 4 of 5 requests failed, 0 of 500 before"
    )
    scene.ask(0)
    assert scene.roll() == [(1, 100)]
    assert not scene.deployment.HasField("rollout")
    scene.deployment.generation += 1
    scene.roll()
    assert scene.deployment.rollout.version == 2


def test_a_version_that_cannot_be_loaded_is_rolled_back_at_once() -> None:
    scene = Scene()
    scene.roll()
    scene.standings[2] = Standing(failure="it is no model")
    assert scene.roll() == [(1, 100)]
    assert scene.deployment.rejected_reason == "version 2 was rolled back: it is no model"


def test_a_version_that_never_answers_is_given_up() -> None:
    scene = Scene()
    scene.roll()
    scene.now += 299
    scene.roll()
    assert scene.deployment.HasField("rollout")
    scene.now += 2
    scene.roll()
    assert "0 of its 1 replicas answer" in scene.deployment.rejected_reason


def judged(least: float) -> Scene:
    """Version 2 has to agree, and answers nobody yet."""
    scene = Scene()
    scene.deployment.spec.rollout.min_agreement = least
    for _ in range(3):
        scene.ask(0)
        assert scene.roll() == [(1, 100)]
    assert not scene.deployment.HasField("shadow")
    scene.standings[2] = READY
    assert scene.roll() == [(1, 100)]
    return scene


def test_a_version_that_has_to_agree_is_compared_before_it_answers_anybody() -> None:
    scene = judged(0.9)
    shadow = scene.deployment.shadow
    assert (shadow.version, shadow.beside, shadow.tolerance) == (2, 1, 0.01)
    assert shadow.percent == 4  # of 500 in a second
    for _ in range(9):
        scene.compare(10, 10)
        assert scene.roll() == [(1, 100)]
    scene.compare(10, 1)
    assert scene.roll() == [(1, 99), (2, 1)]
    assert scene.deployment.HasField("shadow")
    scene.compare(0, 0)
    scene.compare(30, 20)  # 111 of 130
    assert scene.roll() == [(1, 100)]
    assert scene.deployment.rejected_reason == (
        "version 2 was rolled back at 1 %: 111 of 130 rows agree, 90 % are asked for"
    )
    found = scene.deployment.agreement
    assert (found.version, found.beside, found.rows, found.agreed) == (2, 1, 130, 111)
    assert not scene.deployment.HasField("shadow")


def test_a_version_that_has_to_agree_waits_for_requests() -> None:
    scene = judged(0.5)
    for _ in range(60):
        scene.report(*(serving_pb2.VersionLoad(version=v, healthy=1) for v in (1, 2)))
        assert scene.roll() == [(1, 100)]
    scene.deployment.wanted_replicas = 0
    scene.roll()
    assert not scene.deployment.HasField("rollout")
    scene.deployment.wanted_replicas = 1
    scene.roll()
    assert scene.deployment.rollout.version == 2


def test_agreement_is_told_and_not_judged_unless_asked_for() -> None:
    scene = started()
    for _ in range(6):
        scene.compare(100, 0)
        scene.roll()
    assert scene.deployment.serving_version == 1
    assert scene.deployment.rollout.percent == 1
    assert scene.deployment.agreement.rows >= 100
    assert scene.deployment.agreement.dropped


def test_a_shadow_answers_nobody_until_the_spec_changes() -> None:
    scene = Scene()
    spec = scene.deployment.spec.rollout
    spec.shadow_percent = 40
    scene.standings[2] = READY
    for _ in range(400):
        scene.compare(10, 9)
        assert scene.roll() == [(1, 100)]
    assert scene.deployment.shadow.percent == 40
    # Nor where nobody else does.
    scene.standings[1] = Standing()
    assert scene.roll() == [(1, 100)]
    scene.standings[1] = READY
    spec.shadow_percent = 0
    scene.compare(10, 9)
    assert scene.roll() == [(1, 99), (2, 1)]


@pytest.mark.parametrize(
    ("rows", "agreed", "least", "said"),
    [
        (0, 0, 0.9, False),
        (10, 0, 0.9, False),  # the other 90 may still agree
        (11, 0, 0.9, True),
        (200, 180, 0.9, False),
        (200, 179, 0.9, True),
        (100, 0, 0.0, False),
        (1, 0, 1.0, True),
    ],
)
def test_what_disagrees(rows: int, agreed: int, least: float, said: bool) -> None:
    assert bool(disagreement(Count(rows=rows, agreed=agreed), least)) is said


def test_a_version_serves_on_by_the_spec_that_asked_for_it_last() -> None:
    scene = Scene()
    scene.deployment.spec.version = 1
    scene.deployment.spec.labels["zone"] = "a"
    scene.roll()
    scene.deployment.spec.version = 2
    scene.deployment.spec.labels.clear()
    scene.roll()
    assert scene.deployment.rollout.version == 2
    assert dict(scene.deployment.serving_spec.labels) == {"zone": "a"}


def test_a_canary_stays_at_its_share() -> None:
    scene = started()
    scene.deployment.spec.rollout.hold_percent = 5
    for _ in range(30):
        scene.ask(200)
        scene.roll()
    assert scene.roll() == [(1, 95), (2, 5)]
    scene.deployment.spec.rollout.hold_percent = 0
    assert scene.roll() == [(1, 90), (2, 10)]


@pytest.mark.parametrize(
    ("old", "new", "worse"),
    [
        (Count(1000, 0, 10), Count(1000, 0, 10), False),
        (Count(1000, 0, 10), Count(2, 2, 0.1), False),  # too few to tell
        (Count(1000, 0, 10), Count(3, 3, 0.1), True),
        (Count(1000, 200, 10), Count(50, 12, 0.5), False),  # clients' own mistakes
        (Count(1000, 200, 10), Count(50, 25, 0.5), True),
        (Count(0, 0, 0), Count(50, 10, 0.5), False),
        (Count(0, 0, 0), Count(50, 50, 0.5), True),
        (Count(1000, 0, 10), Count(100, 0, 2.5), False),
        (Count(1000, 0, 10), Count(100, 0, 5.0), True),
    ],
)
def test_what_is_worse(old: Count, new: Count, worse: bool) -> None:
    assert bool(compare(old, new)) is worse


def scaled(low: int, high: int) -> Scene:
    scene = Scene()
    scale = scene.deployment.spec.scale
    scale.min_replicas, scale.max_replicas, scale.target_outstanding = low, high, 4
    scale.calm_s = 10
    return scene


def asked(scene: Scene, outstanding: int, seconds: int, waiting: int = 0) -> int:
    for _ in range(seconds):
        load = serving_pb2.VersionLoad(version=1, outstanding=outstanding, requests=outstanding)
        scene.report(load, waiting=waiting)
        wanted = wanted_replicas(scene.now, scene.cluster, scene.deployment)
        scene.deployment.wanted_replicas = wanted
    return scene.deployment.wanted_replicas


def test_replicas_follow_the_load_up_at_once_and_down_after_a_calm() -> None:
    scene = scaled(1, 4)
    assert asked(scene, 11, seconds=3) == 3
    assert asked(scene, 40, seconds=3) == 4
    assert asked(scene, 1, seconds=9) == 4
    assert asked(scene, 1, seconds=3) == 1
    assert asked(scene, 0, seconds=60) == 1


def test_a_model_sleeps_when_nobody_asks_and_wakes_when_somebody_does() -> None:
    scene = scaled(0, 4)
    assert asked(scene, 1, seconds=30) == 1
    assert asked(scene, 0, seconds=9) == 1
    assert asked(scene, 0, seconds=3) == 0
    assert asked(scene, 0, seconds=30) == 0
    assert asked(scene, 0, seconds=1, waiting=1) == 1


def test_a_replica_that_took_long_to_load_has_its_calm_before_it_sleeps() -> None:
    scene = scaled(0, 4)
    replica = task_pb2.ReplicaTask(deployment="m", version=1)
    task = task_pb2.Task(id="m.1.0", node_id="w", node_incarnation="1", replica=replica)
    scene.cluster.workers["w"] = node_pb2.Node(id="w", incarnation="1")
    scene.cluster.tasks["w", task.id] = task
    assert asked(scene, 0, seconds=30) == 1
    status = task_pb2.TaskStatus(state=task_pb2.TASK_STATE_RUNNING)
    status.updated_at.FromNanoseconds(int(scene.now * 1e9))
    scene.cluster.statuses["w", task.id] = status
    assert asked(scene, 0, seconds=9) == 1
    assert asked(scene, 0, seconds=1) == 0


def test_what_is_not_reported_changes_nothing() -> None:
    scene = scaled(0, 4)
    assert asked(scene, 7, seconds=3) == 2
    scene.now += 600
    assert wanted_replicas(scene.now, scene.cluster, scene.deployment) == 2
