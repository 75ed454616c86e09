"""Metrics for arrays, and those that training accumulates, against each other and by hand."""

import numpy as np
import pytest

from lepton_ai import Sequential, metrics
from lepton_ai.errors import DataError

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, 3, 60)
SCORES = RANDOM.random((60, 3)) + np.eye(3)[TRUTH] * 0.4
SCORES /= SCORES.sum(axis=1, keepdims=True)
BITS = (TRUTH > 0).astype(int)


def test_by_hand():
    table = metrics.confusion_matrix(TRUTH, SCORES)
    found, true, right = table.sum(axis=0), table.sum(axis=1), table.diagonal()
    assert table.sum() == 60
    assert metrics.accuracy(TRUTH, SCORES) == pytest.approx(right.sum() / 60)
    assert metrics.precision(TRUTH, SCORES) == pytest.approx((right / found).mean())
    assert metrics.recall(TRUTH, SCORES) == pytest.approx((right / true).mean())
    assert metrics.f1(TRUTH, SCORES) == pytest.approx((2 * right / (found + true)).mean())
    assert metrics.top_k(TRUTH, SCORES, k=1) == metrics.accuracy(TRUTH, SCORES)
    assert metrics.top_k(TRUTH, SCORES, k=3) == 1


def test_roc_auc_counts_pairs():
    scores = SCORES[:, 1] + SCORES[:, 2]
    pairs = scores[BITS == 1][:, np.newaxis] - scores[BITS == 0]
    assert metrics.roc_auc(BITS, scores) == pytest.approx((pairs > 0).mean())
    assert metrics.roc_auc(BITS, scores[:, np.newaxis]) == metrics.roc_auc(BITS, scores)
    assert 0.5 < metrics.roc_auc(TRUTH, SCORES) < 1
    with pytest.raises(DataError, match="one class only"):
        metrics.roc_auc([1, 1], [0.1, 0.2])


def test_regression():
    truth, found = np.array([1.0, 2.0, 4.0]), np.array([[1.5], [2.0], [3.0]])
    assert metrics.mse(truth, found) == pytest.approx(1.25 / 3)
    assert metrics.mae(truth, found) == pytest.approx(0.5)
    assert metrics.r2(truth, found) == pytest.approx(1 - 1.25 / ((truth - truth.mean()) ** 2).sum())


def test_columns_of_labels_and_probabilities_are_taken_as_they_come():
    assert metrics.accuracy([[0], [1]], [[0.2], [0.5]]) == 1
    assert metrics.accuracy([0, 1], [0, 1]) == 1
    for metric in (metrics.accuracy, metrics.mse, metrics.top_k):
        with pytest.raises(DataError):
            metric([0, 1], [0.5])
    with pytest.raises(DataError, match=r"give \(samples, classes\)"):
        metrics.top_k([0, 1], [0, 1])


def evaluated(activation, units, loss, names, y):
    model = Sequential((3,), [("dense", {"units": units, "activation": activation})])
    model.compile("adam", loss, names)
    model.fit(SCORES, y, epochs=3, batch_size=16, seed=0)
    return model.predict(SCORES), model.evaluate(SCORES, y, batch_size=7)[1:]


@pytest.mark.parametrize(
    ("activation", "units", "loss", "names", "y"),
    [
        (
            "softmax",
            3,
            "sparse_categorical_crossentropy",
            ["accuracy", "precision", "recall", "f1", "roc_auc"],
            TRUTH,
        ),
        ("sigmoid", 1, "binary_crossentropy", ["accuracy", "f1", "recall", "roc_auc"], BITS),
        ("linear", 1, "mse", ["mse", "mae", "r2"], TRUTH.astype(float)),
    ],
)
def test_evaluate_gives_what_the_functions_give(activation, units, loss, names, y):
    predictions, results = evaluated(activation, units, loss, names, y)
    expected = [getattr(metrics, name)(y, predictions) for name in names]
    assert results == pytest.approx(expected, abs=1e-5)


def test_one_hot_labels_and_several_labels_a_sample_are_measured():
    one_hot = np.eye(3)[TRUTH]
    names = ["accuracy", ("top_k", {"k": 2})]
    predictions, results = evaluated("softmax", 3, "categorical_crossentropy", names, one_hot)
    assert results[0] == pytest.approx(metrics.accuracy(TRUTH, predictions))
    assert results[1] == pytest.approx(metrics.top_k(TRUTH, predictions, k=2))
    predictions, results = evaluated("sigmoid", 3, "binary_crossentropy", ["accuracy"], one_hot)
    assert results[0] == pytest.approx(((predictions > 0.5) == one_hot).mean())
