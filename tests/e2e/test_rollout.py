"""Versions that take over, and replicas that come and go, while requests keep coming."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from lepton_ai import CNN
from lepton_ai.datasets import load_digits
from lepton_ai.errors import ConflictError
from lepton_ai.proto.v1 import deployment_pb2, task_pb2
from lepton_runtime import keys

from .conftest import until

pytestmark = pytest.mark.e2e
CLIENTS = 4


@dataclass(frozen=True)
class Answer:
    status: int
    version: str
    at: float
    text: str


@dataclass
class Load:
    """Clients that ask one deployment again and again, and what they were answered."""

    answers: list[Answer] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def ask(self, address: str, key: str, name: str) -> None:
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        tensor = {"datatype": "FP32", "shape": [1, 8, 8, 1], "data": [0.5] * 64}
        metadata = json.loads(_get(connection, f"/v2/models/{name}", None, key)[1])
        tensor["name"] = metadata["inputs"][0]["name"]
        tensor["datatype"] = metadata["inputs"][0]["datatype"]
        body = json.dumps({"inputs": [tensor]})
        while not self.stopping.is_set():
            status, text = _get(connection, f"/v2/models/{name}/infer", body, key)
            version = json.loads(text).get("model_version", "")
            self.answers.append(Answer(status, version, time.monotonic(), text))
        connection.close()

    def more(self, count: int = 100) -> None:
        """Wait for further answers."""
        before = len(self.answers)
        until(lambda: len(self.answers) >= before + count)

    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]

    def versions(self, since: float = 0.0) -> set[str]:
        return {answer.version for answer in self.answers if answer.at >= since}


def _get(
    connection: http.client.HTTPConnection, path: str, body: str | None, key: str
) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {key}"}
    connection.request("POST" if body else "GET", path, body, headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


@contextmanager
def asked(cluster, name: str) -> Iterator[Load]:
    load = Load()
    profile = cluster.profile
    clients = [
        threading.Thread(target=load.ask, args=(profile.address, profile.api_key, name))
        for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        load.more()
        yield load
    finally:
        load.stopping.set()
        for client in clients:
            client.join()


@pytest.fixture(scope="module")
def published(cluster):
    """Versions 1 and 2 of `rolling` answer alike; version 3 takes other images."""
    for side in (8, 8, 7):
        model = CNN(
            input_shape=(side, side, 1),
            layers=[("flatten"), ("dense", {"units": 10, "activation": "softmax"})],
        )
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
        images, labels = load_digits("train")
        model.fit(images[:64, :side, :side], labels[:64], epochs=1)
        cluster.client.publish(model, "rolling")


def replicas(cluster, name):
    """The tasks that serve a deployment."""
    tasks = map(task_pb2.Task.FromString, cluster.records(keys.TASKS))
    return [task for task in tasks if task.replica.deployment == name]


def test_a_new_version_takes_over_under_load(cluster, command, published):
    cluster.client.deploy("rolling", name="taken-over", version=1)
    with asked(cluster, "taken-over") as load:
        cluster.client.deploy("rolling", name="taken-over", version=2, stage_s=1.0)
        announced = time.monotonic()
        load.more()
    assert load.failed() == []
    assert load.versions() == {"1", "2"}
    assert load.versions(since=announced) == {"2"}
    assert "v2:100%" in command("deployments")


def test_other_options_reach_replicas_under_load(cluster, published):
    cluster.client.deploy("rolling", name="tuned", version=1, replicas=2)
    with asked(cluster, "tuned") as load:
        options = {"max_batch_size": 3}
        cluster.client.deploy("rolling", name="tuned", version=1, replicas=2, options=options)
        load.more()
    assert load.failed() == []
    connection = http.client.HTTPConnection(cluster.profile.address, timeout=30)
    for _ in range(8):
        _, text = _get(connection, "/v2/models/tuned/config", None, cluster.profile.api_key)
        assert json.loads(text)["max_batch_size"] == 3
    connection.close()
    cluster.client.undeploy("tuned")


def test_a_canary_keeps_its_share_and_versions_can_be_named(cluster, command, published):
    cluster.client.deploy("rolling", name="split", version=1)
    with asked(cluster, "split") as load:
        command("deploy", "rolling", "--name", "split", "--version", "2", "--canary", "20")
        announced = time.monotonic()
        load.more(400)
        since = [answer.version for answer in load.answers if answer.at > announced]
        assert "v1:80% v2:20%" in command("deployments")
    assert load.failed() == []
    assert 0.1 < since.count("2") / len(since) < 0.3
    host, _, port = cluster.profile.address.rpartition(":")
    for version in ("1", "2"):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        path = f"/v2/models/split/versions/{version}/ready"
        assert _get(connection, path, None, cluster.profile.api_key)[0] == 200
        connection.close()
    cluster.client.undeploy("split")


def test_a_bad_version_is_rolled_back_and_says_why(cluster, published):
    cluster.client.deploy("rolling", name="rescued", version=1)
    with asked(cluster, "rescued") as load:
        with pytest.raises(ConflictError, match=r"version 3 was rolled back at \d+ %: \d+ of \d+"):
            cluster.client.deploy("rolling", name="rescued", version=3, stage_s=5.0)
        rolled_back = time.monotonic()
        load.more()
    assert len(load.failed()) < len(load.answers) / 10
    assert {answer.version for answer in load.answers if answer.at > rolled_back} == {"1"}
    found = cluster.client.deployment("rescued")
    assert found.state == deployment_pb2.DEPLOYMENT_STATE_ROLLED_BACK
    assert [(share.version, share.percent) for share in found.traffic] == [(1, 100)]
    cluster.client.undeploy("rescued")


def test_a_shadow_is_compared_and_answers_nobody(cluster, command, published):
    cluster.client.deploy("rolling", name="compared", version=1)
    with asked(cluster, "compared") as load:
        command("deploy", "rolling", "--name", "compared", "--version", "2", "--shadow", "100")
        until(lambda: cluster.client.deployment("compared").agreement.rows > 100)
    found = cluster.client.deployment("compared")
    assert found.agreement.unanswered == 0
    assert (load.failed(), load.versions()) == ([], {"1"})
    assert "v2: " in command("deployments")
    cluster.client.undeploy("compared")


def test_replicas_come_and_go_under_load(cluster, published):
    cluster.client.deploy("rolling", name="moving", version=1)
    with asked(cluster, "moving") as load:
        cluster.client.deploy("rolling", name="moving", version=1, replicas=2)
        load.more()
        cluster.client.deploy("rolling", name="moving", version=1, replicas=1)
        until(lambda: len(replicas(cluster, "moving")) == 1)
        load.more()
        cluster.client.deploy("rolling", name="moving", version=1, replicas=2)
        load.more()
        cluster.kill_node("worker-1", "lepton_worker")
        load.more(300)
    assert load.failed() == []


def test_an_alias_moves_a_deployment_under_load(cluster, command, published):
    command("models", "alias", "rolling:1", "champion")
    command("deploy", "rolling@champion", "--name", "following", "--stage", "1")
    with asked(cluster, "following") as load:
        command("models", "alias", "rolling:2", "champion")
        until(lambda: is_up(cluster, "following", version=2))
        announced = time.monotonic()
        load.more(300)
    assert load.failed() == []
    assert load.versions() == {"1", "2"}
    assert load.versions(since=announced) == {"2"}
    cluster.client.undeploy("following")


def is_up(cluster, name, version):
    """Whether it is announced that a version serves alone."""
    found = cluster.client.deployment(name)
    assert found.state != deployment_pb2.DEPLOYMENT_STATE_ROLLED_BACK, found.reason
    ready = found.state == deployment_pb2.DEPLOYMENT_STATE_READY
    return ready and found.serving_version == version


def test_a_model_sleeps_wakes_for_a_request_and_sleeps_again(cluster, published):
    scale = {"min_replicas": 0, "max_replicas": 1, "calm_s": 2}
    spec = json.dumps({"model": "rolling", "version": "1", "scale": scale})
    connection = http.client.HTTPConnection(cluster.profile.address, timeout=30)
    headers = {"authorization": f"Bearer {cluster.profile.api_key}"}
    connection.request("PUT", "/v1/deployments/dozy", spec, headers)
    assert connection.getresponse().status == 200
    connection.close()
    images, _ = load_digits("train")
    endpoint = cluster.client.endpoint("dozy")
    for _ in range(2):
        until(lambda: asleep(cluster, "dozy"))
        began = time.monotonic()
        assert endpoint.predict(images[:3], timeout_s=20).shape == (3, 10)
        assert time.monotonic() - began < 20
        assert not asleep(cluster, "dozy")
    cluster.client.undeploy("dozy")


def asleep(cluster, name):
    """Whether it is announced that no replica is left."""
    found = cluster.client.deployment(name)
    state = found.state == deployment_pb2.DEPLOYMENT_STATE_ASLEEP
    assert not state or not replicas(cluster, name)
    return state
