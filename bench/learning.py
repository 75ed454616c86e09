"""How fast `fit` trains the tutorial's CNN, next to a plain torch loop, Keras and Lightning.

    python bench/learning.py [--without-peers] [--rounds 3]

Every contender trains the same network on the same 12,800 images, batch 64, two threads, in a
process of its own; rounds take turns, and the median of each counts. Peers are installed into a
throw-away environment. Machines drift: compare figures of one run only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, BATCH, WARM, THREADS = 12_800, 64, 1_280, 2
WANTED = 1.35
PEERS = ["tensorflow-cpu", "keras", "lightning", "torch"]


def data(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels; what they show does not change the speed."""
    random = np.random.default_rng(0)
    return random.random((images, 28, 28, 1), np.float32), random.integers(0, 10, images)


def rate(train: Callable[[int], object]) -> float:
    """Images a second, after a short run that loads what is loaded once."""
    train(WARM)
    start = time.perf_counter()
    train(IMAGES)
    return IMAGES / (time.perf_counter() - start)


def lepton() -> float:
    import torch

    from lepton_ai import CNN

    torch.set_num_threads(THREADS)
    conv = {"kernel_size": (3, 3), "activation": "relu"}
    model = CNN(
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
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return rate(lambda images: model.fit(*data(images), batch_size=BATCH))


def _torch_network() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1600, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def _loop(layout: str) -> float:
    import torch

    torch.set_num_threads(THREADS)
    memory_format = getattr(torch, layout)
    network = _torch_network().to(memory_format=memory_format)
    optimizer = torch.optim.Adam(network.parameters())
    loss_of = torch.nn.CrossEntropyLoss()

    def train(images: int) -> None:
        x, y = (torch.from_numpy(array) for array in data(images))
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
        for batch in torch.randperm(images).split(BATCH):
            optimizer.zero_grad()
            loss_of(network(x[batch]), y[batch]).backward()
            optimizer.step()

    return rate(train)


def plain_loop() -> float:
    return _loop("contiguous_format")


def channels_last_loop() -> float:
    return _loop("channels_last")


def lightning() -> float:
    import logging
    import warnings

    import torch
    from lightning import LightningModule, Trainer

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(THREADS)

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = _torch_network()
            self.loss_of = torch.nn.CrossEntropyLoss()

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            return self.loss_of(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    module = Module()

    def train(images: int) -> None:
        x, y = (torch.from_numpy(array) for array in data(images))
        samples = torch.utils.data.TensorDataset(x.permute(0, 3, 1, 2).contiguous(), y)
        loader = torch.utils.data.DataLoader(samples, batch_size=BATCH, shuffle=True)
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)

    return rate(train)


def _keras(backend: str) -> float:
    os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    import keras
    from keras import layers

    if backend == "tensorflow":
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(THREADS)
    else:
        import torch

        torch.set_num_threads(THREADS)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return rate(lambda images: model.fit(*data(images), batch_size=BATCH, verbose=0))


def keras_tensorflow() -> float:
    return _keras("tensorflow")


def keras_torch() -> float:
    return _keras("torch")


OURS = {"plain torch loop": plain_loop, "channels-last loop": channels_last_loop, "Lepton": lepton}
THEIRS = {"Keras-TF": keras_tensorflow, "Keras-torch": keras_torch, "Lightning": lightning}


def measure(python: Path, name: str) -> float:
    """One contender's rate, from a process of its own."""
    command = [str(python), __file__, "--contender", name]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def install_peers(folder: Path) -> Path:
    """The interpreter of a fresh environment with the peers in it."""
    print("installing peers into a throw-away environment ...", file=sys.stderr)
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    versions = Path(__file__).parents[1] / "constraints.txt"
    subprocess.run([*pip, "-c", str(versions), *PEERS], check=True, stderr=subprocess.DEVNULL)
    return python


def compare(pythons: dict[str, Path], rounds: int) -> dict[str, float]:
    """The median rate of each contender over rounds in which all take turns."""
    rates: dict[str, list[float]] = {name: [] for name in pythons}
    for _ in range(rounds):
        for name, python in pythons.items():
            rates[name].append(measure(python, name))
    return {name: statistics.median(found) for name, found in rates.items()}


def report(rates: dict[str, float]) -> int:
    """Print the table; the exit status says whether the target is met."""
    base = rates["plain torch loop"]
    for name, found in sorted(rates.items(), key=lambda item: -item[1]):
        print(f"{name:<20} {found:>7,.0f} images/s  {found / base:.2f} x the plain loop")
    met = rates["Lepton"] >= WANTED * base
    print(f"target: Lepton at {WANTED} x the plain loop: {'met' if met else 'MISSED'}")
    return 0 if met else 1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--without-peers", action="store_true")
    options.add_argument("--contender", choices=[*OURS, *THEIRS], help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.contender:
        print((OURS | THEIRS)[chosen.contender]())
        return 0
    pythons = dict.fromkeys(OURS, Path(sys.executable))
    if chosen.without_peers:
        return report(compare(pythons, chosen.rounds))
    with tempfile.TemporaryDirectory() as folder:
        pythons |= dict.fromkeys(THEIRS, install_peers(Path(folder)))
        return report(compare(pythons, chosen.rounds))


if __name__ == "__main__":
    sys.exit(main())
