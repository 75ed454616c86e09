"""The whole way in one command: store, train on two workers, publish, serve, ask, sum up."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lepton_ai.cli import local
from lepton_ai.cli.load import Load, send_grpc, send_rest
from lepton_ai.cli.output import print_table
from lepton_ai.cluster.profile import Profile
from lepton_ai.cluster.sync import Cluster
from lepton_ai.errors import UnavailableError
from lepton_ai.learn.kinds import CNN
from lepton_ai.learn.model import Model
from lepton_ai.oip.tensor import Tensor
from lepton_ai.preprocessing import MinMaxScaler
from lepton_ai.proto.v1 import job_pb2

__all__ = ["run"]

_WORKERS = 2


@dataclass(frozen=True)
class _Task:
    """What to learn: data, model, and how good it has to become."""

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    model: Model
    epochs: int
    accuracy: float


@dataclass
class _Times:
    """Seconds by phase."""

    phases: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        print(f"{name} ...", flush=True)
        began = time.monotonic()
        yield
        self.phases[name] = time.monotonic() - began


def run() -> int:
    """Run the demonstration; 0 when the served model is as good as it has to be."""
    times = _Times()
    with times.phase("finding the data"):
        task = _task()
    # Its own home: a cluster that is up already stays as it is.
    with tempfile.TemporaryDirectory(prefix="lepton-demo-") as home:
        options = local.LocalOptions(Path(home), 0, _WORKERS, storage=2)
        began = time.monotonic()
        with local.attached(options, print):
            times.phases["starting the cluster"] = time.monotonic() - began
            profile = Profile.read(options.home)
            with Cluster(profile.address, profile.api_key) as cluster:
                passed = _main_job(cluster, profile, task, times)
            began = time.monotonic()
        times.phases["ending the cluster"] = time.monotonic() - began
    print_table(("WHERE THE TIME WENT", "s"), [(k, f"{v:.1f}") for k, v in times.phases.items()])
    print("passed" if passed else f"failed: accuracy is below {task.accuracy}")
    return 0 if passed else 1


def _main_job(cluster: Cluster, profile: Profile, task: _Task, times: _Times) -> bool:
    with times.phase("storing the data"):
        cluster.upload(task.name, {"train": task.train, "test": task.test})
    with times.phase(f"training on {_WORKERS} workers"):
        job = _trained(cluster, task)
    with times.phase("deploying 2 replicas"):
        endpoint = cluster.deploy(task.name, replicas=2)
        endpoint.predict(task.test[0][:2])  # reads what the model takes
    tensor = Tensor("input", "UINT8", task.test[0][..., np.newaxis])
    with times.phase("asking by REST"):
        rest = send_rest(endpoint, tensor.array)
    with times.phase("asking by gRPC"):
        grpc = send_grpc(profile, task.name, tensor)
    return _summed_up(task, job, rest, grpc)


def _trained(cluster: Cluster, task: _Task) -> job_pb2.Job:
    job = cluster.submit(
        task.model,
        task.name,
        epochs=task.epochs,
        batch_size=64,
        workers=_WORKERS,
        publish_as=task.name,
    )
    return cluster.wait(job)


def _summed_up(task: _Task, job: job_pb2.Job, rest: Load, grpc: Load) -> bool:
    seconds = job.finished_at.ToNanoseconds() - job.started_at.ToNanoseconds()
    trained = task.epochs * len(task.train[0]) / max(seconds / 1e9, 1e-9)
    labels = task.test[1]
    print_table(
        ("SUMMARY", ""),
        [
            ("data", f"{task.name}, {len(labels):,} test images"),
            ("model", f"{task.name}:{job.result.model_version}"),
            ("trained", f"{trained:,.0f} images/s, from placement to publication"),
            *_rows("REST", rest, labels),
            *_rows("gRPC", grpc, labels),
        ],
    )
    return min(rest.accuracy(labels), grpc.accuracy(labels)) >= task.accuracy


def _rows(protocol: str, load: Load, labels: np.ndarray) -> list[tuple[str, str]]:
    p50, p99 = load.percentile_ms(50), load.percentile_ms(99)
    return [
        (f"accuracy by {protocol}", f"{load.accuracy(labels):.4f}"),
        (
            f"served by {protocol}",
            f"{load.requests_per_s:,.0f} requests/s of {load.batch_rows} images, "
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
        ),
    ]


def _task() -> _Task:
    from lepton_ai.datasets import load_digits, load_mnist

    try:
        train, test = load_mnist("train"), load_mnist("test")
    except UnavailableError:
        print("MNIST is neither here nor to be downloaded: using scikit-learn's 1,797 digits")
        train, test = load_digits("train"), load_digits("test")
        return _Task("digits", train, test, _small_model(), epochs=20, accuracy=0.96)
    return _Task("mnist", train, test, _tutorial_model(), epochs=2, accuracy=0.985)


def _tutorial_model() -> Model:
    model = CNN(
        input_shape=(28, 28, 1),
        layers=[
            ("conv", {"filters": 32, "kernel_size": (3, 3), "activation": "relu"}),
            ("pool", {"pool_size": (2, 2)}),
            ("conv", {"filters": 64, "kernel_size": (3, 3), "activation": "relu"}),
            ("pool", {"pool_size": (2, 2)}),
            ("flatten"),
            ("dense", {"units": 128, "activation": "relu"}),
            ("dense", {"units": 10, "activation": "softmax"}),
        ],
        preprocessing=[MinMaxScaler()],
    )
    return _compiled(model)


def _small_model() -> Model:
    model = CNN(
        input_shape=(8, 8, 1),
        layers=[
            ("conv", {"filters": 32, "kernel_size": (3, 3), "activation": "relu"}),
            ("pool", {"pool_size": (2, 2)}),
            ("flatten"),
            ("dense", {"units": 128, "activation": "relu"}),
            ("dense", {"units": 10, "activation": "softmax"}),
        ],
        preprocessing=[MinMaxScaler()],
    )
    return _compiled(model)


def _compiled(model: Model) -> Model:
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
