"""How fast two ranks train, next to the same loop under plain `torchrun`, and how soon they begin.

    python bench/training.py [--rounds 3] [--epochs 2]

Two ranks of one thread each train the tutorial's CNN on the same 12,800 images, a global batch
of 64, gradients averaged by gloo. Here a warm local cluster does it, fault-tolerant at every
step; there DistributedDataParallel. Both run the same network, batches and optimizer. The rate is
taken from the first step to the last, the start from submission (or from the command) to the end
of the first step. Rounds take turns, and the median of each counts. Machines drift: compare
figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_ai import CNN
from lepton_ai.cli import local
from lepton_ai.cluster.profile import Profile
from lepton_ai.cluster.sync import Cluster
from lepton_ai.learn.model import Model
from lepton_ai.proto.v1 import job_pb2

IMAGES, BATCH, RANKS, SEED = 12_800, 64, 2, 0
STEPS_PER_EPOCH = IMAGES // BATCH
WANTED_RATE, WANTED_START_S = 0.95, 2.0
_RANK = "--as-rank"


@dataclass(frozen=True)
class Run:
    """What one run showed."""

    images_per_s: float
    first_step_s: float


def data() -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels; what they show does not change the speed."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (IMAGES, 28, 28), np.uint8)
    return images, random.integers(0, 10, IMAGES)


def model() -> Model:
    """The tutorial's network, compiled."""
    conv = {"kernel_size": (3, 3), "activation": "relu"}
    network = CNN(
        (28, 28, 1),
        [
            ("conv", {"filters": 32, **conv}),
            ("pool", {"pool_size": (2, 2)}),
            ("conv", {"filters": 64, **conv}),
            ("pool", {"pool_size": (2, 2)}),
            "flatten",
            ("dense", {"units": 128, "activation": "relu"}),
            ("dense", {"units": 10, "activation": "softmax"}),
        ],
    )
    network.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return network


def on_the_cluster(cluster: Cluster, epochs: int) -> Run:
    """Train a job there; the rate is between the first progress told and the last."""
    submitted = time.time()
    job = cluster.submit(model(), "bench", epochs=epochs, batch_size=BATCH, workers=RANKS)
    told: list[tuple[float, int]] = []
    for change in cluster.watch(job.id):
        if isinstance(change, job_pb2.JobProgress):
            told.append((change.at.ToNanoseconds() / 1e9, change.step))
        else:
            job = change
    if job.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise SystemExit(f"the job failed: {job.reason}")
    told.sort()
    (began, first), (ended, last) = told[0], told[-1]
    return Run((last - first) * BATCH / (ended - began), began - submitted)


def under_torchrun(epochs: int) -> Run:
    """Train with `torchrun` in processes of its own."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={RANKS}", __file__, _RANK, f"--epochs={epochs}"),
    ]
    began = time.time()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    first, last = json.loads(done.stdout.strip().splitlines()[-1])
    return Run((epochs * STEPS_PER_EPOCH - 1) * BATCH / (last - first), first - began)


def as_rank(epochs: int) -> None:
    """One rank under `torchrun`."""
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    from lepton_ai.learn import data as conversions
    from lepton_ai.learn.batches import BatchPlan, rank_rows
    from lepton_ai.learn.network import build_module

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    distributed.init_process_group("gloo")
    compiled = model()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = build_module(compiled.config, SEED)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network.logits(x)

    network = DistributedDataParallel(Logits())
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    images, labels = data()
    x = torch.from_numpy(conversions.as_inputs(compiled.config, images))
    y = torch.from_numpy(labels)
    plan = BatchPlan(IMAGES, BATCH, SEED)
    first = 0.0
    for step in range(epochs * STEPS_PER_EPOCH):
        indices = plan.indices(step)
        rows = rank_rows(len(indices), distributed.get_rank(), RANKS)
        share = torch.from_numpy(indices[rows.start : rows.stop])
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(x[share]), y[share]).backward()
        optimizer.step()
        first = first or time.time()
    if distributed.get_rank() == 0:
        print(json.dumps([first, time.time()]), flush=True)
    distributed.barrier()
    os._exit(0)  # gloo's threads sometimes abort an orderly end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument(_RANK, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_rank:
        as_rank(options.epochs)
        return
    with tempfile.TemporaryDirectory(prefix="lepton-bench-") as home:
        where = local.LocalOptions(Path(home), 0, RANKS, storage=1)
        with local.attached(where, lambda _: None):
            profile = Profile.read(where.home)
            with Cluster(profile.address, profile.api_key) as cluster:
                cluster.upload("bench", {"train": data()})
                compare(cluster, options)


def compare(cluster: Cluster, options: Any) -> None:
    """Run both in turns and print the medians."""
    contenders: dict[str, Callable[[], Run]] = {
        "Lepton": lambda: on_the_cluster(cluster, options.epochs),
        "torchrun": lambda: under_torchrun(options.epochs),
    }
    on_the_cluster(cluster, 1)
    runs = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            runs[name].append(contender())
            time.sleep(3)
    rate = {n: statistics.median(run.images_per_s for run in runs[n]) for n in runs}
    start = {n: statistics.median(run.first_step_s for run in runs[n]) for n in runs}
    for name in runs:
        print(f"{name:<10}{rate[name]:>8,.0f} images/s   first step after {start[name]:.2f} s")
    ratio = rate["Lepton"] / rate["torchrun"]
    print(f"{ratio:.2f} x the rate of torchrun (wanted: {WANTED_RATE})")
    print(f"first step after {start['Lepton']:.2f} s (wanted: {WANTED_START_S})")


if __name__ == "__main__":
    main()
