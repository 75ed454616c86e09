"""The registry on a real cluster: lineage back to the data, and aliases that deployments follow."""

from __future__ import annotations

import json
import threading

import numpy as np
import pandas as pd
import pytest

from lepton_ai import Sequential
from lepton_ai.datasets import load_digits
from lepton_ai.errors import ConflictError, InvalidArgumentError, NotFoundError
from lepton_ai.proto.v1 import job_pb2, storage_pb2
from lepton_runtime import keys

from .conftest import until

pytestmark = pytest.mark.e2e
ROWS = np.random.default_rng(5).random((8, 4), np.float32)


def fitted(seed):
    model = Sequential(input_shape=(4,), layers=[("dense", {"units": 3})])
    model.compile("adam", "mse")
    model.fit(ROWS, ROWS[:, :3] * seed, epochs=1, seed=seed)
    return model


def test_a_model_leads_back_to_its_data(cluster, model, command):
    stored = cluster.client.upload("lineage", {"train": load_digits("train")})
    job = cluster.client.submit(model, "lineage", epochs=1, publish_as="lineage")
    cluster.client.wait(job)
    [split] = stored.splits
    published = cluster.client.model("lineage:1")
    assert published.job_id == job.id
    assert published.dataset == "lineage:1"
    assert published.dataset_object == split.object_id
    assert published.libraries["torch"]
    assert published.metrics["accuracy"] > 0.1
    shown = json.loads(command("models", "show", "lineage", "--json"))
    assert shown["dataset_object"] == split.object_id
    page = command("models", "show", "lineage")
    assert job.id in page
    assert "conv(filters=16" in page.replace("\n", "")


def test_a_deployment_follows_its_alias_and_no_request_fails(cluster, command):
    first, second = fitted(1), fitted(2)
    cluster.client.publish(first, "follow")
    command("models", "alias", "follow:1", "champion")
    endpoint = cluster.client.deploy("follow@champion", name="follow")
    cluster.client.publish(second, "follow")
    np.testing.assert_allclose(endpoint.predict(ROWS), first.predict(ROWS), atol=1e-5)
    stop, failures, answers = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            try:
                answers.append(endpoint.predict(ROWS))
            except Exception as error:  # noqa: BLE001 - counted, whatever it is
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        until(lambda: len(answers) > 20)
        assert "version 2" in command("models", "alias", "follow:2", "champion")
        new = second.predict(ROWS)
        until(lambda: np.allclose(answers[-1], new, atol=1e-5))
        switched = len(answers)
        until(lambda: len(answers) > switched + 20)
    finally:
        stop.set()
        asking.join()
    assert not failures
    old = first.predict(ROWS)
    for answer in answers:
        assert np.allclose(answer, old, atol=1e-5) or np.allclose(answer, new, atol=1e-5)
    assert cluster.client.deployment("follow").spec.version == 2


def test_what_is_in_use_is_not_deleted(cluster, command):
    cluster.client.publish(fitted(1), "kept")
    cluster.client.move_alias("kept", "champion", 1, from_version=0)
    with pytest.raises(ConflictError, match="champion"):
        cluster.client.delete_model("kept", 1)
    with pytest.raises(ConflictError, match="points at 1"):
        cluster.client.move_alias("kept", "champion", 1, from_version=0)
    command("models", "unalias", "kept", "champion")
    command("models", "delete", "kept:1")
    with pytest.raises(NotFoundError):
        cluster.client.model("kept")
    with pytest.raises(NotFoundError):
        cluster.client.deploy("kept@champion")
    with pytest.raises(InvalidArgumentError):
        cluster.client.model("kept:one")
    assert cluster.client.publish(fitted(1), "kept").version == 2


def test_files_become_datasets_that_are_trained_on(cluster, command, tmp_path):
    inputs, labels = load_digits("train")
    table = pd.DataFrame(inputs.reshape(len(inputs), -1)[:300])
    table.columns = [f"p{number}" for number in range(table.shape[1])]
    table["digit"] = [f"digit {label}" for label in labels[:300]]
    table.to_csv(tmp_path / "digits.csv", index=False)
    path = str(tmp_path / "digits.csv")
    printed = command(
        "datasets", "upload", "from-csv", path, "--label", "digit", "--replication", "1"
    )
    assert "from-csv:1" in printed
    shown = json.loads(command("datasets", "show", "from-csv:1", "--json"))
    [split] = shown["splits"]
    assert {column["name"] for column in split["columns"]} == {"x", "y", "label"}
    assert int(split["rows"]) == 300
    manifests = map(storage_pb2.Object.FromString, cluster.records(keys.OBJECTS))
    [chunks] = [each.chunks for each in manifests if each.id == split["object_id"]]
    assert [len(chunk.nodes) for chunk in chunks] == [1]
    model = Sequential((table.shape[1] - 1,), [("dense", {"units": 10, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    job = cluster.client.submit(model, "from-csv", epochs=1)
    assert cluster.client.wait(job).state == job_pb2.JOB_STATE_SUCCEEDED
    command("datasets", "delete", "from-csv:1")
    with pytest.raises(NotFoundError):
        cluster.client.dataset("from-csv")
