"""What is refused before anything is created, and what the refusal says."""

from __future__ import annotations

import json

import pytest

from lepton_ai import Sequential
from lepton_ai.errors import ConflictError, InvalidArgumentError, NotFoundError
from lepton_ai.proto.v1 import deployment_pb2, job_pb2, node_pb2, storage_pb2
from lepton_scheduler.submission import (
    check_change,
    check_deployment,
    check_job,
    check_variant,
    newest,
)

WORKERS = [
    node_pb2.Node(id=f"w{i}", capacity=node_pb2.Resources(cpus=2, memory_bytes=100))
    for i in range(2)
]


def spec(**resources: float) -> job_pb2.JobSpec:
    job = job_pb2.JobSpec(name="digits", resources=node_pb2.Resources(**resources))  # pyright: ignore
    job.train.dataset, job.train.epochs, job.train.batch_size = "digits", 1, 32
    job.train.model_config = '{"kind": "CNN"}'
    return job


def test_more_than_the_cluster_has_is_refused_and_says_what_it_has() -> None:
    with pytest.raises(InvalidArgumentError, match="2 workers with 4 cpus in all, 2 on the larg"):
        check_job(spec(cpus=3), WORKERS)
    many = spec(cpus=1)
    many.workers.min = 5
    with pytest.raises(InvalidArgumentError, match="5 ranks of 1 cpus"):
        check_job(many, WORKERS)


def test_memory_and_accelerators_count_too() -> None:
    for resources in ({"memory_bytes": 101}, {"gpus": 1}):
        with pytest.raises(InvalidArgumentError, match="never fit"):
            check_job(spec(**resources), WORKERS)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("epochs", 0, "epochs is 0"),
        ("batch_size", -1, "batch_size is -1"),
        ("validation_fraction", 1.0, "validation_fraction is 1"),
        ("checkpoint_every_steps", -1, "negative"),
        ("checkpoints_kept", 101, "101 checkpoints"),
        ("shards", -1, "shards is -1"),
        ("shards", 65, "shards is 65"),
        ("publish_as", "Not A Name", "Not A Name"),
        ("dataset", "../etc", "etc"),
        ("model_config", "{", "not JSON"),
        ("model_config", "[]", "not a JSON object"),
        ("model_config", "{}", "model"),
    ],
)
def test_a_training_that_cannot_be_is_refused(field: str, value: object, says: str) -> None:
    job = spec()
    setattr(job.train, field, value)
    with pytest.raises(InvalidArgumentError, match=says):
        check_job(job, WORKERS)


def compiled() -> Sequential:
    model = Sequential((2,), [("dense", {"units": 1})])
    model.compile("sgd", "mse")
    return model


def test_each_shard_needs_an_accelerator_or_none_does() -> None:
    workers = [node_pb2.Node(id="w", capacity=node_pb2.Resources(cpus=8, gpus=4))]
    for gpus in (0, 2, 3):
        job = spec(gpus=gpus)
        job.train.model_config = json.dumps(compiled().to_config())
        job.train.shards = 2
        assert check_job(job, workers).train.shards == 2
    job = spec(gpus=3)
    job.train.shards = 4
    with pytest.raises(InvalidArgumentError, match="4 shards do not fit 3 gpus"):
        check_job(job, workers)


def test_a_range_the_wrong_way_round_is_refused() -> None:
    job = spec()
    job.workers.min, job.workers.max = 3, 2
    with pytest.raises(InvalidArgumentError, match="3:2 is no range"):
        check_job(job, WORKERS)


def test_a_job_without_work_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no work"):
        check_job(job_pb2.JobSpec(name="idle"), WORKERS)


def test_a_deployment_is_named_after_its_model_and_has_one_replica() -> None:
    checked = check_deployment(deployment_pb2.DeploymentSpec(model="digits"))
    assert (checked.name, checked.replicas) == ("digits", 1)


def test_too_many_replicas_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="use 1 to 256"):
        check_deployment(deployment_pb2.DeploymentSpec(model="digits", replicas=257))


def test_the_newest_version_is_meant_where_none_is_named() -> None:
    models = [storage_pb2.Model(name="digits", version=v) for v in (1, 2)]
    assert newest(models, "digits", 0, {"digits"}).version == 2
    with pytest.raises(NotFoundError, match="versions: 1, 2"):
        newest(models, "digits", 3, {"digits"})
    with pytest.raises(NotFoundError, match="did you mean 'digits'"):
        newest([], "digit", 0, {"digits"})


def test_a_deployment_keeps_its_model() -> None:
    old = deployment_pb2.DeploymentSpec(name="d", model="m", version=1)
    new = deployment_pb2.DeploymentSpec(name="d", model="m", version=1, replicas=3)
    new.options.cache_bytes = 10
    assert check_change(old, new) is new
    new.model = "n"
    with pytest.raises(ConflictError, match="undeploy it first"):
        check_change(old, new)


def test_options_below_zero_are_refused() -> None:
    spec = deployment_pb2.DeploymentSpec(model="m")
    spec.options.preferred_batch_sizes.extend([4, -1])
    with pytest.raises(InvalidArgumentError, match="preferred_batch_sizes is -1"):
        check_deployment(spec)


def test_a_variant_has_to_be_published_with_the_version() -> None:
    model = storage_pb2.Model(name="m", version=2)
    model.variants.add(kind="int8", onnx_object="b3-8")
    check_variant("", model)
    check_variant("int8", model)
    with pytest.raises(NotFoundError, match="no variant 'fp16' in version 2: it has int8"):
        check_variant("fp16", model)
