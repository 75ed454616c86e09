"""The tutorial's program and ours with the same calls, on digits that ship with scikit-learn."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import lepton_ai.datasets
from lepton_ai import CNN
from lepton_ai.errors import UnavailableError

CHECKOUT = Path(__file__).parents[3]
PRINTED = CHECKOUT.parent / "shared/tutorial/mnist_cnn.py"
PROGRAMS = [CHECKOUT / "examples/mnist_cnn.py", *([PRINTED] if PRINTED.exists() else [])]


@pytest.fixture
def small_mnist(monkeypatch):
    """A stand-in at MNIST's size of image, and three epochs in place of ten."""

    def load(split):
        images, labels = lepton_ai.datasets.load_digits(split)
        large = np.kron(images, np.ones((1, 3, 3), np.uint8)) * 15
        return np.pad(large, ((0, 0), (2, 2), (2, 2))), labels

    fit = CNN.fit
    monkeypatch.setattr(lepton_ai.datasets, "load_mnist", load)
    monkeypatch.setattr(
        CNN,
        "fit",
        lambda self, x, y, **options: fit(self, x, y, **{**options, "epochs": 3, "seed": 0}),
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.parent.name)
def test_the_program_runs_unchanged(program, small_mnist, capsys):
    variables = runpy.run_path(str(program))
    correct = int(capsys.readouterr().out.split()[-1])
    images, labels = lepton_ai.datasets.load_mnist("test")
    accuracy = variables["model"].evaluate(images / 255.0, labels)[1]
    assert correct == pytest.approx(accuracy * 360)
    assert correct > 0.93 * 360


def test_mnist_is_what_it_says():
    try:
        images, labels = lepton_ai.datasets.load_mnist("test")
    except UnavailableError as missing:
        pytest.skip(str(missing))
    assert images.shape == (10_000, 28, 28)
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
