"""A dataset that is read chunk by chunk: each worker fetches what its rank needs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lepton_ai import Sequential
from lepton_ai.chunking import CHUNK_BYTES
from lepton_ai.learn.model import Model
from lepton_ai.proto.v1 import job_pb2

from .conftest import until

pytestmark = pytest.mark.e2e
ROWS, WIDTH = 80_000, 256
CHUNKS = -(-ROWS * (WIDTH * 4 + 8) // CHUNK_BYTES)


@pytest.fixture(scope="module")
def wide(cluster):
    """Two classes on either side of a plane."""
    chance = np.random.default_rng(7)
    x = chance.standard_normal((ROWS, WIDTH), dtype=np.float32)
    y = (x @ chance.standard_normal(WIDTH) > 0).astype(np.int64)
    cluster.client.upload("wide", {"train": (x, y)})


def linear() -> Model:
    made = Sequential((WIDTH,), [("dense", {"units": 2, "activation": "softmax"})])
    made.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return made


def submit(cluster, **options) -> job_pb2.Job:
    window = 16 * CHUNK_BYTES
    return cluster.client.submit(
        linear(),
        "wide",
        batch_size=100,
        workers=2,
        shuffle_window_bytes=window,
        **options,
    )


def fetched(cluster, node):
    return [path for path in cluster.home.rglob("b3-*") if node in path.parts]


def accuracy(job):
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.reason
    return json.loads(job.result.history)["epochs"][-1]["accuracy"]


@pytest.mark.parametrize("shards", [1, 2])
def test_each_rank_fetches_its_share(cluster, wide, shards):
    job = cluster.client.wait(submit(cluster, epochs=1, min_workers=2, shards=shards))
    assert accuracy(job) > 0.8
    for node in ("worker-1", "worker-2"):
        assert len(fetched(cluster, node)) < 0.85 * CHUNKS


def test_losing_a_worker_loses_no_sample(cluster, wide):
    job = submit(cluster, epochs=3)
    for event in cluster.client.watch(job.id):
        if isinstance(event, job_pb2.JobProgress) and event.step > 200:
            break
    cluster.kill_node("worker-2", "lepton_worker")
    assert accuracy(cluster.client.wait(job)) > 0.85
    until(lambda: len(cluster.client.nodes()) >= 5)
