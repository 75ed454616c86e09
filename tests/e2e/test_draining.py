"""Workers that are taken out on purpose, and jobs that make room for others."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lepton_ai.datasets import load_digits
from lepton_ai.errors import NotFoundError
from lepton_ai.proto.v1 import job_pb2

from .conftest import until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def digits(cluster):
    cluster.client.upload("digits", {"train": load_digits("train")})
    return load_digits("test")


def tasks(cluster):
    return {node.id: node.tasks for node in cluster.client.nodes()}


def states(command):
    return {node["id"]: node for node in json.loads(command("nodes", "--json"))}


def steps(client, job_id, wanted):
    for event in client.watch(job_id):
        if isinstance(event, job_pb2.JobProgress) and event.step >= wanted:
            return
    raise AssertionError("the job ended too soon")


def test_draining_a_serving_worker_fails_no_request(cluster, command, digits, model):
    model.fit(*load_digits("train"), epochs=1)
    endpoint = cluster.client.deploy(model, name="moving")
    home = next(name for name, count in tasks(cluster).items() if count)
    stop, failures, answered = threading.Event(), [], []

    def ask(_):
        while not stop.is_set():
            try:
                endpoint.predict(digits[0][:4])
                answered.append(1)
            except Exception as error:  # noqa: BLE001 - counted, whatever it is
                failures.append(error)

    with ThreadPoolExecutor(4) as threads:
        asking = threads.map(ask, range(4))
        try:
            until(lambda: len(answered) > 50)
            assert "may be switched off" in command("nodes", "drain", home)
            before = len(answered)
            until(lambda: len(answered) > before + 50)
        finally:
            stop.set()
        list(asking)
    assert not failures
    after = states(command)
    assert after[home]["draining"]
    assert "drained" in command("nodes")
    assert sum(int(node.get("tasks", 0)) for node in after.values()) == 1
    command("nodes", "uncordon", home)
    assert "draining" not in states(command)[home]
    cluster.client.undeploy("moving")
    until(lambda: not any(tasks(cluster).values()))


@pytest.mark.parametrize("node", ["worker-1", "worker-2"])  # one of them holds the lighthouse
def test_a_job_goes_on_while_a_worker_is_drained(cluster, command, digits, model, node):
    job = cluster.client.submit(model, "digits", epochs=100_000, batch_size=32, workers=2)
    steps(cluster.client, job.id, 50)
    command("nodes", "drain", node)
    drained_at = time.time()
    command("nodes", "uncordon", node)
    step = next(
        event.step
        for event in cluster.client.watch(job.id)
        if isinstance(event, job_pb2.JobProgress) and event.at.ToNanoseconds() / 1e9 > drained_at
    )
    assert step > 50, "it began anew"
    assert cluster.client.cancel(job.id).state == job_pb2.JOB_STATE_CANCELLED
    until(lambda: not any(tasks(cluster).values()))


def test_a_cordoned_worker_gets_no_rank(cluster, command, digits, model):
    command("nodes", "cordon", "worker-1")
    job = cluster.client.submit(model, "digits", epochs=4, batch_size=32, workers=2)
    until(lambda: tasks(cluster)["worker-2"])
    assert tasks(cluster)["worker-1"] == 0
    assert cluster.client.wait(job).state == job_pb2.JOB_STATE_SUCCEEDED
    command("nodes", "uncordon", "worker-1")


def test_a_job_makes_room_for_a_more_urgent_one(cluster, command, digits, model):
    room = sum(int(node.capacity.cpus) for node in cluster.client.nodes())
    patient = cluster.client.submit(
        model, "digits", epochs=100_000, batch_size=32, workers=room, checkpoint_interval_s=1
    )
    steps(cluster.client, patient.id, 50)
    urgent = cluster.client.submit(
        model, "digits", epochs=2, batch_size=32, workers=1, min_workers=1, priority=10
    )
    assert cluster.client.wait(urgent).state == job_pb2.JOB_STATE_SUCCEEDED
    trains = job_pb2.JOB_STATE_RUNNING
    until(lambda: cluster.client.job(patient.id).state == trains)
    said = command("job", "show", patient.id)
    assert "accepted" in said
    assert "ranks train" in said
    assert cluster.client.cancel(patient.id).state == job_pb2.JOB_STATE_CANCELLED
    assert until(lambda: not any(tasks(cluster).values())) <= 5


def test_only_workers_are_drained_this_way(cluster):
    with pytest.raises(NotFoundError, match="lepton storage drain"):
        cluster.client.workers.drain("storage-1")
    with pytest.raises(NotFoundError, match="not alive"):
        cluster.client.workers.cordon("worker-9")
