"""What is measured or kept of shards, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton_ai import Sequential
from lepton_ai.errors import DataError, InvalidArgumentError
from lepton_ai.learn.config import ModelConfig
from lepton_ai.splits import arrays_to_split, read_split
from lepton_worker.evaluation import Evaluation
from lepton_worker.predictions import Output, Predictions, column_names, kept

ROWS = 400
RNG = np.random.default_rng(3)
X = RNG.standard_normal((ROWS, 5), dtype=np.float32)
CLASSES = (X @ RNG.standard_normal((5, 4))).argmax(axis=1)


def learner(units: int, activation: str, loss: str, metrics: list[str]) -> Any:
    made = Sequential((5,), [("dense", {"units": units, "activation": activation})])
    made.compile("adam", loss, metrics)
    return made


KINDS = {
    "classes": (
        (4, "softmax", "sparse_categorical_crossentropy", ["accuracy", "f1", "roc_auc", "top_k"]),
        CLASSES,
    ),
    "one-hot": ((4, "softmax", "categorical_crossentropy", ["precision"]), np.eye(4)[CLASSES]),
    "yes or no": ((1, "sigmoid", "binary_crossentropy", ["accuracy", "roc_auc"]), CLASSES > 1),
    "labels": ((3, "sigmoid", "binary_crossentropy", ["recall"]), (X[:, :3] > 0).astype(np.int64)),
    "numbers": ((2, "linear", "mse", ["mae", "r2"]), X[:, :2] * 2),
}


def measured(config: ModelConfig, outputs: NDArray[Any], y: NDArray[Any], rows: int) -> Any:
    """An evaluation in shards of so many rows."""
    whole = Evaluation(config)
    for start in range(0, len(outputs), rows):
        part = slice(start, start + rows)
        whole.add(Evaluation(config).measure(outputs[part], y[part]))
    return whole.results()


@pytest.mark.parametrize("kind", KINDS)
def test_shards_measure_what_the_model_measures_itself(kind: str) -> None:
    (units, activation, loss, metrics), y = KINDS[kind]
    model = learner(units, activation, loss, metrics)
    model.fit(X, y, epochs=2)
    config = ModelConfig.from_dict(model.to_config())
    found = measured(config, model.predict(X), y, 70)
    expected = dict(zip(["loss", *metrics], model.evaluate(X, y), strict=True))
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert found == pytest.approx(measured(config, model.predict(X), y, ROWS), rel=1e-5)


def test_each_class_has_numbers_of_its_own() -> None:
    config = ModelConfig.from_dict(learner(3, "softmax", *_SPARSE).to_config())
    said, there = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    found = measured(config, np.eye(3, dtype=np.float32)[said], there, 3)
    of_class = {name: [found[f"{name}[{c}]"] for c in range(3)] for name in _NAMES}
    assert of_class == {
        "precision": [0.5, 1, 0],
        "recall": [1, pytest.approx(2 / 3), 0],
        "f1": [pytest.approx(2 / 3), 0.8, 0],
        "rows": [1, 3, 0],
    }


_SPARSE = ("sparse_categorical_crossentropy", ["accuracy"])
_NAMES = ("precision", "recall", "f1", "rows")


def test_outputs_of_another_model_are_not_measured() -> None:
    config = ModelConfig.from_dict(learner(3, "softmax", *_SPARSE).to_config())
    with pytest.raises(DataError, match="outputs have shape"):
        Evaluation(config).measure(np.zeros((4, 2), np.float32), np.zeros(4, np.int64))


def test_a_split_is_put_together_in_any_order(tmp_path: Path) -> None:
    columns = {"output": X, "flags": CLASSES > 1, "bytes": CLASSES.astype(np.uint8)}
    made = Predictions(tmp_path / "split", ROWS)
    for start in (300, 0, 200, 100):
        made.add(start, {name: array[start : start + 100] for name, array in columns.items()})
    read = read_split(made.path)
    assert read.keys() == columns.keys()
    for name, array in columns.items():
        np.testing.assert_array_equal(read[name], array)
    told = arrays_to_split("test", columns)[0].columns
    assert made.columns() == [
        {"name": each.name, "dtype": each.dtype, "row_shape": list(each.row_shape)} for each in told
    ]


def test_rows_that_are_not_alike_make_no_split(tmp_path: Path) -> None:
    made = Predictions(tmp_path / "split", 4)
    made.add(0, {"output": X[:2]})
    with pytest.raises(DataError, match="shape"):
        made.add(2, {"output": X[:2, :1]})


def test_outputs_become_columns() -> None:
    assert column_names(["output", "Out put", "Out:put", "%"]) == [
        "output",
        "out_put",
        "output_2",
        "output_3",
    ]
    np.testing.assert_array_equal(kept(Output("o", "BF16"), np.array([0x3F80], np.uint16)), [1.0])
    with pytest.raises(InvalidArgumentError, match="texts"):
        kept(Output("o", "BYTES"), np.array([b""], object))
