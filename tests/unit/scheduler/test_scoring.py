"""Evaluations and batch predictions: what is pinned, how they are cut, who publishes."""

from __future__ import annotations

import asyncio
import json

import pytest

from lepton_ai import Sequential
from lepton_ai.errors import InvalidArgumentError, NotFoundError
from lepton_ai.proto.v1 import job_pb2, node_pb2, storage_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Write
from lepton_scheduler.actions import PlaceGang, PlaceTask, UpdateJob, UpdateTask
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.core import decide
from lepton_scheduler.sharding import MAX_SHARDS, how_many_shards, shard_rows
from lepton_scheduler.sources import Sources
from lepton_scheduler.submission import check_job

NOW = 10_000.0
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("rows", "size_bytes", "ranks", "expected"),
    [
        (1_000_000, 4096 * MIB, 2, 3_906),  # 16 MiB
        (10_000, 8 * MIB, 2, 1_250),  # four for each rank
        (100, MIB, 4, 64),
        (10, MIB, 4, 10),
        (10, 4096 * MIB, 1, 1),  # a row is larger than a shard should be
        (100_000_000, 4096 * 1024 * MIB, 1, 24_415),  # no more than there may be
    ],
)
def test_data_is_cut_into_shards(rows: int, size_bytes: int, ranks: int, expected: int) -> None:
    found = shard_rows(rows, size_bytes, ranks, 0)
    assert found == expected
    assert how_many_shards(rows, found) <= MAX_SHARDS


def test_a_job_may_say_how_it_is_cut_but_not_into_dust() -> None:
    assert shard_rows(1_000_000, MIB, 1, 1_000) == 1_000
    for asked in (-1, 7):
        with pytest.raises(InvalidArgumentError, match="shards of"):
            shard_rows(1_000_000, MIB, 1, asked)


def compiled() -> str:
    model = Sequential((4,), [("dense", {"units": 2, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy")
    return json.dumps(model.to_config())


async def stored() -> MemoryState:
    state = MemoryState()
    split = storage_pb2.Split(name="test", object_id="b3-data", rows=1_000)
    split.columns.add(name="x", dtype="float32", row_shape=[4])
    labelled = storage_pb2.Split()
    labelled.CopyFrom(split)
    labelled.columns.add(name="y", dtype="int64")
    train = storage_pb2.Split(name="train", object_id="b3-data", rows=9)
    models = [
        storage_pb2.Model(name="m", version=1, model_config=compiled()),
        storage_pb2.Model(name="m", version=2),
    ]
    datasets = [
        storage_pb2.Dataset(name="d", version=1, splits=[train, split]),
        storage_pb2.Dataset(name="d", version=2, splits=[train, labelled]),
    ]
    alias = storage_pb2.Alias(model="m", name="champion", version=1)
    data = storage_pb2.Object(id="b3-data", size_bytes=24_000)
    await state.commit(
        [],
        [
            *(Write(keys.model("m", m.version), m.SerializeToString()) for m in models),
            *(Write(keys.dataset("d", d.version), d.SerializeToString()) for d in datasets),
            Write(keys.alias("m", "champion"), alias.SerializeToString()),
            Write(keys.object_("b3-data"), data.SerializeToString()),
        ],
    )
    return state


def pinned(workers: int = 2, **score: str) -> job_pb2.JobSpec:
    async def scenario() -> job_pb2.JobSpec:
        spec = job_pb2.JobSpec(workers=job_pb2.WorkerRange(min=1, max=workers))
        spec.score.CopyFrom(job_pb2.ScoreSpec(**score))  # pyright: ignore[reportArgumentType]
        spec = check_job(spec, [])
        await Sources(await stored()).pin(spec)
        return spec

    return asyncio.run(scenario())


def test_versions_split_and_shards_are_pinned() -> None:
    spec = pinned(model="m@champion", dataset="d")
    assert (spec.score.model, spec.score.dataset, spec.score.split) == ("m:1", "d:2", "test")
    assert (spec.score.shard_rows, spec.workers.max) == (125, 2)
    kept = pinned(workers=8, model="m", dataset="d:1", split="train", output="o")
    assert (kept.score.model, kept.score.dataset, kept.score.split) == ("m:2", "d:1", "train")
    assert (kept.score.shard_rows, kept.workers.max) == (9, 1)  # more ranks had nothing to do


@pytest.mark.parametrize(
    ("score", "says"),
    [
        ({"model": "m", "dataset": "d"}, "names no loss"),
        ({"model": "m:1", "dataset": "d:1"}, "no column 'y'"),
        ({"model": "m:x", "dataset": "d"}, "is no number"),
        ({"model": "M", "dataset": "d"}, "not a valid model name"),
        ({"model": "m", "dataset": "d", "output": "../etc"}, "not a valid dataset name"),
    ],
)
def test_what_cannot_be_scored_is_refused(score: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        pinned(**score)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "score",
    [
        {"model": "n", "dataset": "d"},
        {"model": "m:9", "dataset": "d"},
        {"model": "m@x", "dataset": "d"},
        {"model": "m:1", "dataset": "e"},
        {"model": "m:1", "dataset": "d:3"},
        {"model": "m:1", "dataset": "d", "split": "valid"},
        {"model": "m:1", "dataset": "d", "variant": "int8"},
    ],
)
def test_what_is_not_there_is_said(score: dict[str, str]) -> None:
    with pytest.raises(NotFoundError):
        pinned(**score)  # pyright: ignore[reportArgumentType]


def say(cluster: Cluster, task: task_pb2.Task, state: task_pb2.TaskState) -> None:
    status = task_pb2.TaskStatus(
        task_id=task.id, node_id=task.node_id, attempt=task.attempt, state=state
    )
    status.updated_at.FromSeconds(int(NOW))
    cluster.statuses[task.node_id, task.id] = status


def test_ranks_need_no_lighthouse_and_one_puts_the_result_together() -> None:
    job = job_pb2.Job(id="j-1", state=job_pb2.JOB_STATE_QUEUED, attempt=1)
    job.spec.workers.min, job.spec.workers.max = 1, 2
    job.spec.resources.cpus = 1
    job.spec.score.model = "m:1"
    workers = {
        name: node_pb2.Node(id=name, incarnation="1", capacity=node_pb2.Resources(cpus=1))
        for name in ("w1", "w2")
    }
    cluster = Cluster(workers=workers, jobs={"j-1": job})
    (gang,) = decide(NOW, cluster)
    assert isinstance(gang, PlaceGang)
    assert [(task.id, task.score.rank) for task in gang.tasks] == [("j-1-r0", 0), ("j-1-r1", 1)]
    cluster.jobs["j-1"] = gang.job
    cluster.tasks = {(task.node_id, task.id): task for task in gang.tasks}
    for task in gang.tasks:
        say(cluster, task, task_pb2.TASK_STATE_RUNNING)
    (update,) = decide(NOW, cluster)
    assert isinstance(update, UpdateJob)
    assert update.job.reason == "2 ranks compute"
    cluster.jobs["j-1"] = update.job
    say(cluster, gang.tasks[1], task_pb2.TASK_STATE_TRAINED)
    (named,) = decide(NOW, cluster)
    assert isinstance(named, UpdateTask)
    assert (named.task.id, named.task.score.publish) == ("j-1-r1", True)
    say(cluster, gang.tasks[0], task_pb2.TASK_STATE_FAILED)
    assert not any(isinstance(action, PlaceTask) for action in decide(NOW + 9, cluster))
