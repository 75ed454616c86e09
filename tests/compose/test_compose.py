"""The main job on containers that speak mutual TLS, from outside, while nodes are killed."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from lepton_ai import CNN, Cluster
from lepton_ai.cluster.profile import Profile
from lepton_ai.datasets import load_digits
from lepton_ai.errors import UnauthenticatedError
from lepton_ai.learn.model import Model
from lepton_ai.preprocessing import MinMaxScaler
from lepton_ai.proto.v1 import job_pb2, node_pb2

from .conftest import MEMBERS, Compose, until

SERVICES = ("scheduler-1", "storage-1", "gateway", "worker-1")
HAVE_TORCH = "import importlib.util as u; print(u.find_spec('torch') is not None)"


@pytest.fixture(scope="module")
def digits(cluster: Cluster) -> tuple[np.ndarray, np.ndarray]:
    train, test = load_digits("train"), load_digits("test")
    cluster.upload("digits", {"train": train, "test": test})
    return test


@pytest.fixture(scope="module")
def model() -> Model:
    model = CNN(
        input_shape=(8, 8, 1),
        layers=[
            ("conv", {"filters": 32, "kernel_size": (3, 3), "activation": "relu"}),
            "flatten",
            ("dense", {"units": 10, "activation": "softmax"}),
        ],
        preprocessing=[MinMaxScaler()],
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def trained(cluster: Cluster, digits: tuple[np.ndarray, np.ndarray], model: Model) -> job_pb2.Job:
    job = cluster.submit(model, "digits", epochs=20, workers=2, publish_as="digits")
    return cluster.wait(job)


@pytest.fixture(scope="module")
def served(cluster: Cluster, trained: job_pb2.Job) -> str:
    assert trained.state == job_pb2.JOB_STATE_SUCCEEDED, trained.reason
    cluster.deploy("digits", replicas=2)
    return "digits"


def test_every_container_becomes_healthy(compose: Compose, cluster: Cluster) -> None:
    for service in (*SERVICES, "scheduler-2", "storage-2", "storage-3", "worker-2"):
        until(lambda service=service: compose.health(service) == "healthy", timeout_s=120)


def test_images_are_lean_and_nobody_is_root(compose: Compose, cluster: Cluster) -> None:
    have_torch = {name: compose.inside(name, "python3", "-c", HAVE_TORCH) for name in SERVICES}
    assert {name for name, told in have_torch.items() if told.strip() == "True"} == {"worker-1"}
    for service in SERVICES:
        assert compose.inside(service, "id", "-u").strip() != "0"


def test_a_model_is_trained_served_and_asked(
    cluster: Cluster, served: str, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = digits
    answers = cluster.endpoint(served).predict(x)
    assert np.mean(answers.argmax(axis=-1) == y) >= 0.95
    workers = {n.id for n in cluster.nodes() if n.role == node_pb2.NODE_ROLE_WORKER}
    assert workers == {"worker-1", "worker-2"}


def test_without_key_or_authority_nobody_gets_in(cluster: Cluster, home: Path) -> None:
    profile = Profile.read(home)
    stranger = http.client.HTTPSConnection(profile.address, context=profile.tls, timeout=10)
    stranger.request("POST", "/v2/models/digits/infer", b"{}")
    assert stranger.getresponse().status == 401
    stranger.close()
    (home / "ca.pem").write_text(profile.authority)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEPTON_AUTHORITY", str(home / "ca.pem"))
        other = Cluster(profile.address, "made.up.key")
    with other, pytest.raises(UnauthenticatedError):
        other.nodes()
    plain = http.client.HTTPConnection(profile.address, timeout=10)
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.request("GET", "/v2/health/live")
        plain.getresponse()
    plain.close()


def test_the_command_works_from_outside(home: Path, cluster: Cluster, served: str) -> None:
    command = (Path(sys.executable).parent / "lepton", "models")
    environment = {**os.environ, "LEPTON_HOME": str(home)}
    told = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    assert b"digits" in told.stdout


def test_killing_a_serving_worker_fails_no_request(
    compose: Compose, cluster: Cluster, served: str, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    x, _ = digits
    endpoint, stop, answered = cluster.endpoint(served), threading.Event(), 0
    expected = endpoint.predict(x[:16]).argmax(axis=-1)
    failures: list[BaseException] = []

    def ask() -> None:
        nonlocal answered
        while not stop.is_set():
            try:
                answers = endpoint.predict(x[:16], timeout_s=30)
                assert (answers.argmax(axis=-1) == expected).all()
                answered += 1
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)
                return

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        until(lambda: answered > 20)
        compose.kill("worker-1")
        until(lambda: cluster.deployment(served).ready_replicas < 2)
        until(lambda: cluster.deployment(served).ready_replicas == 2)
    finally:
        stop.set()
        asking.join()
    assert not failures


def test_killing_schedulers_and_a_storage_node_loses_nothing(
    compose: Compose, cluster: Cluster, model: Model, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    job = cluster.submit(model, "digits", epochs=40, workers=2, publish_as="survivor")
    until(lambda: cluster.job(job.id).state == job_pb2.JOB_STATE_RUNNING)
    for service in ("scheduler-1", "scheduler-2", "storage-2"):
        compose.kill(service)
    assert cluster.wait(job).state == job_pb2.JOB_STATE_SUCCEEDED
    until(lambda: len(cluster.nodes()) == MEMBERS)
    assert "survivor" in {model.name for model in cluster.models()}


def test_restarting_everything_keeps_everything(compose: Compose, cluster: Cluster) -> None:
    before = {(model.name, model.version) for model in cluster.models()}
    assert before
    compose("restart", "-t", "10")

    def back() -> bool:
        return {(model.name, model.version) for model in cluster.models()} == before

    until(back, timeout_s=120)
    until(lambda: cluster.deployment("digits").ready_replicas == 2, timeout_s=120)
