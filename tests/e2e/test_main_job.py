"""The main job on a real cluster: store, train, publish, serve, ask; and what may go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lepton_ai import RNN, AsyncCluster, Cluster, Sequential
from lepton_ai.cli.load import send_grpc, send_rest
from lepton_ai.datasets import load_digits
from lepton_ai.errors import (
    ConflictError,
    DataError,
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
)
from lepton_ai.oip.tensor import Tensor
from lepton_ai.preprocessing import Tokenizer
from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2, worker_pb2
from lepton_ai.proto.v1.worker_pb2_grpc import WorkerServiceStub
from lepton_ai.rpc import open_channel
from lepton_runtime import keys
from lepton_worker.process_tree import descendants

from .conftest import until

pytestmark = pytest.mark.e2e

GOOD = 0.93


@pytest.fixture(scope="module")
def digits(cluster):
    cluster.client.upload("digits", {"train": load_digits("train")})
    return load_digits("test")


@pytest.fixture(scope="module")
def deployed(cluster, digits):
    """A trained model with two replicas, for the tests that ask it."""
    from .conftest import model as made

    job = cluster.client.submit(
        made.__wrapped__(), "digits", epochs=8, batch_size=32, workers=2, publish_as="digits"
    )
    assert cluster.client.wait(job).result.model_version == 1
    return cluster.client.deploy("digits", replicas=2)


def accuracy(probabilities, labels):
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def test_the_command_asks_with_images_and_tables(deployed, digits, command, tmp_path):
    pixels = digits[0][0].reshape(8, 8)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "digit.png")
    (tmp_path / "digit.json").write_text(json.dumps(digits[0][:1].tolist()))
    np.save(tmp_path / "digit.npy", digits[0][:1])
    wanted = deployed.predict(digits[0][:1])
    for name in ("digit.png", "digit.json", "digit.npy"):
        answer = json.loads(command("predict", deployed.name, str(tmp_path / name)))
        np.testing.assert_allclose(answer, wanted, rtol=1e-3, atol=1e-5)


def test_rest_and_grpc_answer_alike(cluster, digits, deployed):
    images, labels = digits
    rest = send_rest(deployed, images)
    tensor = Tensor("input", "UINT8", images[..., np.newaxis])
    grpc = send_grpc(cluster.profile, "digits", tensor)
    np.testing.assert_allclose(rest.answers, grpc.answers, atol=1e-5)
    assert rest.accuracy(labels) >= GOOD


def test_many_rows_and_many_calls_at_once_are_answered_in_order(cluster, digits, deployed):
    images = np.tile(digits[0], (5, 1, 1))[:1100]
    answers = deployed.predict(images)
    np.testing.assert_allclose(answers[:100], deployed.predict(images[:100]), atol=1e-5)

    async def each() -> list[Any]:
        async with AsyncCluster(cluster.profile.address, cluster.profile.api_key) as client:
            endpoint = client.endpoint("digits")
            return await asyncio.gather(*(endpoint.predict(row[None]) for row in images[:100]))

    # More calls at once than there are connections: some of them travel by gRPC.
    np.testing.assert_allclose(np.concatenate(asyncio.run(each())), answers[:100], atol=1e-5)


def test_fit_on_the_cluster_is_fit(cluster, digits, model):
    history = model.fit(
        *load_digits("train"),
        epochs=8,
        batch_size=32,
        validation_split=0.1,
        cluster=cluster.client,
        workers=2,
    )
    assert len(history) == 8
    assert history["val_accuracy"][-1] > 0.8
    assert accuracy(model.predict(digits[0]), digits[1]) >= GOOD
    endpoint = cluster.client.deploy(model)
    assert endpoint.name == "cnn"
    np.testing.assert_allclose(
        endpoint.predict(digits[0]), model.predict(digits[0]), rtol=1e-3, atol=1e-5
    )
    cluster.client.undeploy("cnn")


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_history_of_the_cluster_is_that_of_this_machine(cluster, shuffle):
    """Also in the metrics of training, to which each rank adds only its share."""

    def fitted(**where):
        model = Sequential((8, 8), ["flatten", ("dense", {"units": 10, "activation": "softmax"})])
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy", "f1"])
        options = {"epochs": 3, "validation_split": 0.1, "shuffle": shuffle, "seed": 5}
        return model, model.fit(*load_digits("train"), **options, **where)

    here, history_here = fitted()
    there, history_there = fitted(cluster=cluster.client, workers=2)
    for one, other in zip(history_here.epochs, history_there.epochs, strict=True):
        assert other == pytest.approx(one, abs=1e-3)
    images, _ = load_digits("test")
    np.testing.assert_allclose(there.predict(images), here.predict(images), atol=1e-3)


def test_a_stored_dataset_goes_in_place_of_arrays(cluster, digits, model):
    version = cluster.client.upload("again", {"train": load_digits("train")}).version
    histories = [
        model.fit(name, epochs=1, seed=1, cluster=cluster.client, workers=1)
        for name in ("again", f"again:{version}")
    ]
    assert all("accuracy" in history.epochs[-1] for history in histories)
    with pytest.raises(NotFoundError, match="agian"):
        model.fit("agian", cluster=cluster.client)
    with pytest.raises(NotFoundError, match="again"):
        model.fit("again:99", cluster=cluster.client)


def test_texts_are_learnt_and_served_on_the_cluster(cluster):
    texts = [f"{word} {number}" for number in range(100) for word in ("win a prize", "see you at")]
    labels = np.tile([1, 0], 100)
    model = RNN(
        (5,),
        [
            ("embedding", {"vocabulary_size": 200, "units": 8}),
            ("gru", {"units": 8}),
            ("dense", {"units": 1, "activation": "sigmoid"}),
        ],
        preprocessing=[Tokenizer(vocabulary_size=200, steps=5)],
    )
    model.compile(("adam", {"learning_rate": 0.02}), "binary_crossentropy", ["f1"])
    history = model.fit(texts, labels, epochs=8, batch_size=16, cluster=cluster.client, workers=2)
    assert history["f1"][-1] > 0.95
    endpoint = cluster.client.deploy(model, name="spam")
    answers = endpoint.predict(["win a prize now", "see you at noon"])
    np.testing.assert_allclose(
        answers, model.predict(["win a prize now", "see you at noon"]), atol=1e-4
    )
    cluster.client.undeploy("spam")


def test_bad_input_gets_a_clear_answer(cluster, digits, model, deployed):
    client = cluster.client
    with pytest.raises(NotFoundError, match="nope"):
        client.endpoint("nope").predict([[1.0]])
    with pytest.raises(InvalidArgumentError, match="shards is 0"):
        client.submit(model, "digits", shards=0)
    with pytest.raises(InvalidArgumentError, match="no option 'shards'"):
        client.submit_evaluation("digits", "digits", shards=2)
    with pytest.raises(NotFoundError, match="did you mean 'digits'"):
        client.deploy("digitz")
    with pytest.raises(NotFoundError, match="no version 99"):
        client.deploy("digits", version=99)
    with pytest.raises(InvalidArgumentError, match="shape"):
        deployed.predict(np.zeros((1, 3), np.uint8))
    with pytest.raises(DataError, match="no rows"):
        deployed.predict(np.zeros((0, 8, 8), np.uint8))
    with pytest.raises(DataError, match="differ in length"):
        client.upload("bad", {"train": (np.zeros((3, 2)), np.zeros(2))})
    with pytest.raises(DataError, match="NaN"):
        client.upload("bad", {"train": (np.full((3, 2), np.nan), np.zeros(3))})
    with pytest.raises(InvalidArgumentError, match="lowercase"):
        client.upload("Bad Name", {"train": np.zeros(3)})
    with pytest.raises(NotFoundError, match="did you mean 'digits'"):
        client.submit(model, "digitz")
    with pytest.raises(InvalidArgumentError, match="never fit"):
        client.submit(model, "digits", workers=1000)
    assert "bad" not in {dataset.name for dataset in client.datasets()}


def test_a_key_is_required(cluster):
    with (
        Cluster(cluster.profile.address, "no-key") as stranger,
        pytest.raises(UnauthenticatedError),
    ):
        stranger.jobs()


def test_a_job_with_bad_data_fails_with_its_reason(cluster, model):
    cluster.client.upload("odd", {"train": (np.zeros((64, 5), np.uint8), np.zeros(64, np.int64))})
    job = cluster.client.submit(model, "odd", epochs=1)
    with pytest.raises(ConflictError, match="shape"):
        cluster.client.wait(job)


def steps_taken(client, job_id, steps):
    """Follow a job until it has taken so many steps."""
    for event in client.watch(job_id):
        if isinstance(event, job_pb2.JobProgress) and event.step >= steps:
            return
    raise AssertionError("the job ended before")


def trainers(cluster):
    """What workers tell of the ranks that they run."""

    async def described(address):
        token = (cluster.home / "keys/service.token").read_text()
        async with open_channel(address, token) as channel:
            stub = WorkerServiceStub(channel)
            return await stub.DescribeWorker(worker_pb2.DescribeWorkerRequest(), timeout=10)

    workers = [n for n in cluster.client.nodes() if n.role == node_pb2.NODE_ROLE_WORKER]
    told = [asyncio.run(described(node.address)) for node in workers]
    assert [answer.node.id for answer in told] == [node.id for node in workers]
    return [task for answer in told for task in answer.tasks if task.task.HasField("trainer")]


def test_a_worker_tells_what_it_runs(cluster, digits, model):
    job = cluster.client.submit(model, "digits", epochs=60, workers=1)
    steps_taken(cluster.client, job.id, 1)
    (running,) = trainers(cluster)
    assert running.task.trainer.job_id == job.id
    assert running.status.state == task_pb2.TASK_STATE_RUNNING
    assert b"lepton_worker.trainer" in Path(f"/proc/{running.pid}/cmdline").read_bytes()
    cluster.client.cancel(job.id)
    assert until(lambda: not trainers(cluster)) < 5
    assert until(lambda: not Path(f"/proc/{running.pid}").exists()) < 5


def test_a_model_split_over_processes_survives_them_and_is_the_same(cluster, digits):
    model = Sequential(
        (8, 8),
        [
            "flatten",
            ("dense", {"units": 15, "activation": "relu"}),
            ("dense", {"units": 10, "activation": "softmax"}),
        ],
    )
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    run = {"epochs": 8, "batch_size": 32, "seed": 5}
    job = cluster.client.submit(
        model, "digits", workers=2, min_workers=2, shards=2, publish_as="split", **run
    )
    steps_taken(cluster.client, job.id, 20)
    ranks = trainers(cluster)
    further = [pid for rank in ranks for pid in descendants(rank.pid)]
    assert len(further) == len(ranks) == 2
    os.kill(further[0], signal.SIGKILL)
    until(lambda: any(rank.task.failures == 1 for rank in trainers(cluster)))
    assert cluster.client.wait(job).state == job_pb2.JOB_STATE_SUCCEEDED
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in further))
    model.fit(*load_digits("train"), **run)
    endpoint = cluster.client.deploy("split")
    np.testing.assert_allclose(endpoint.predict(digits[0]), model.predict(digits[0]), atol=2e-3)
    cluster.client.undeploy("split")


@pytest.mark.parametrize("node", ["worker-1", "worker-2"])  # one of them holds the lighthouse
def test_losing_an_agent_loses_no_job(cluster, digits, model, node):
    job = cluster.client.submit(
        model, "digits", epochs=60, batch_size=32, workers=2, publish_as="survivor"
    )
    steps_taken(cluster.client, job.id, 50)
    cluster.kill_node(node, "lepton_worker")
    assert cluster.client.wait(job).state == job_pb2.JOB_STATE_SUCCEEDED
    endpoint = cluster.client.deploy("survivor")
    assert accuracy(endpoint.predict(digits[0]), digits[1]) >= GOOD
    cluster.client.undeploy("survivor")


def test_losing_every_worker_goes_on_from_a_checkpoint(cluster, digits, model):
    job = cluster.client.submit(
        model, "digits", epochs=60, batch_size=32, workers=2, checkpoint_interval_s=1
    )

    def stored():
        records = cluster.records(keys.checkpoints(job.id))
        return job_pb2.Checkpoints.FromString(records[0]).newest_first if records else []

    until(lambda: len(stored()) == 2)
    before = stored()[0]
    killed_at = time.time()
    for node in ("worker-1", "worker-2"):
        cluster.kill_node(node, "lepton_worker")
    progress = [
        event
        for event in cluster.client.watch(job.id)
        if isinstance(event, job_pb2.JobProgress) and event.at.ToNanoseconds() / 1e9 > killed_at
    ]
    assert min(event.step for event in progress) > before.step
    assert cluster.client.job(job.id).state == job_pb2.JOB_STATE_SUCCEEDED
    until(lambda: not cluster.records(keys.checkpoints(job.id)))


def test_a_restart_of_nats_loses_no_job(cluster, digits, model):
    job = cluster.client.submit(model, "digits", epochs=30, batch_size=32, workers=2)
    steps_taken(cluster.client, job.id, 10)
    cluster.kill_server("nats-server")
    assert cluster.client.wait(job).state == job_pb2.JOB_STATE_SUCCEEDED


def test_a_restart_of_etcd_loses_no_job(cluster, digits, model):
    job = cluster.client.submit(model, "digits", epochs=30, batch_size=32, workers=2)
    steps_taken(cluster.client, job.id, 10)
    cluster.kill_server("etcd")
    assert cluster.client.wait(job).state == job_pb2.JOB_STATE_SUCCEEDED


def test_losing_a_serving_worker_fails_no_request(cluster, digits, deployed):
    until(lambda: cluster.client.deployment("digits").ready_replicas == 2)
    stop, failures, answered = threading.Event(), [], []

    def ask(_):
        while not stop.is_set():
            try:
                deployed.predict(digits[0][:4])
                answered.append(1)
            except Exception as error:  # noqa: BLE001 - counted, whatever it is
                failures.append(error)

    with ThreadPoolExecutor(4) as threads:
        asking = threads.map(ask, range(4))
        try:
            until(lambda: len(answered) > 50)
            cluster.kill_node("worker-2", "lepton_worker")
            until(lambda: cluster.client.deployment("digits").ready_replicas < 2, 10)
            back_s = until(lambda: cluster.client.deployment("digits").ready_replicas == 2)
            before = len(answered)
            until(lambda: len(answered) > before + 50)
        finally:
            stop.set()
        list(asking)
    assert not failures
    assert back_s <= 10
