"""Evaluation and batch prediction through the commands."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lepton_ai.datasets import load_digits

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def digits(cluster):
    """Stored splits of digits."""
    splits = {name: load_digits(name) for name in ("train", "test")}
    cluster.client.upload("digits", splits)
    return splits


@pytest.fixture
def published(cluster, digits, model):
    """A model, trained here and published."""
    model.fit(*digits["train"], epochs=2)
    cluster.client.publish(model, "digits")
    return model


def test_a_model_is_measured_and_its_outputs_are_kept(cluster, digits, published, command):
    x, y = digits["test"]
    words = ("digits", "digits", "--workers", "1:2", "--wait")
    job_id, state = command("evaluate", *words).split()
    assert state == "succeeded"
    metrics = dict(cluster.client.job(job_id).result.metrics)
    loss, accuracy = published.evaluate(x, y)
    assert metrics["accuracy"] == pytest.approx(accuracy)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-3)
    assert metrics["rows[3]"] == (y == 3).sum()
    page = command("job", "show", job_id)
    assert "accuracy" in page
    assert "PRECISION" in page
    assert json.loads(command("jobs", "--json"))[0]["spec"]["score"]["model"] == "digits:1"

    job_id, state = command("batch-predict", *words, "--output", "guesses").split()
    assert state == "succeeded"
    assert cluster.client.job(job_id).result.dataset == "guesses:1"
    told = json.loads(command("datasets", "show", "guesses", "--json"))
    source = cluster.client.dataset("digits").splits[1]
    assert told["origin"] == {
        "job_id": job_id,
        "model": "digits:1",
        "dataset": "digits:1",
        "dataset_object": source.object_id,
    }
    assert "what digits:1 made of digits:1" in command("datasets", "show", "guesses")
    kept = cluster.client.rows("guesses", split="test")["output"]
    endpoint = cluster.client.deploy("digits")
    np.testing.assert_allclose(kept, endpoint.predict(x), atol=1e-6)
    part = cluster.client.rows("guesses:1", 5, 8, split="test")["output"]
    np.testing.assert_array_equal(part, kept[5:8])


def test_a_variant_is_measured_like_its_model(cluster, digits, published, command):
    sample = digits["train"][0][..., np.newaxis]
    cluster.client.publish(published, "small", variants=["int8"], sample=sample)
    words = ("evaluate", "small", "digits", "--wait")
    whole, small = command(*words).split()[0], command(*words, "--variant", "int8").split()[0]
    metrics = [dict(cluster.client.job(job_id).result.metrics) for job_id in (whole, small)]
    assert metrics[0] != metrics[1]
    assert metrics[0]["accuracy"] == pytest.approx(metrics[1]["accuracy"], abs=0.02)


def test_rows_are_downloaded(cluster, digits, command, tmp_path):
    command("datasets", "download", "digits", str(tmp_path / "d.npz"), "--split", "test")
    with np.load(tmp_path / "d.npz") as found:
        np.testing.assert_array_equal(found["y"], digits["test"][1])
