"""Metrics of predictions against what is true, for arrays.

Predictions may be labels or a model's outputs: probabilities of shape ``(samples, classes)`` count
as their likeliest class, and those of ``(samples,)`` or ``(samples, 1)`` as class 1 from 0.5 on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import DataError

__all__ = [
    "accuracy",
    "confusion_matrix",
    "f1",
    "mae",
    "mse",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "top_k",
]

Array = NDArray[Any]


def accuracy(y_true: Any, y_pred: Any) -> float:
    """Share of samples whose class is right, in [0, 1].

    Args:
        y_true: ``(samples,)`` whole numbers.
        y_pred: Labels, or probabilities as a model predicts them.

    Raises:
        DataError: The two do not pair up.

    Example:
        >>> accuracy([0, 1, 1], [0.2, 0.9, 0.4])
        0.6666666666666666
    """
    from sklearn import metrics

    return float(metrics.accuracy_score(*_classes(y_true, y_pred)))


def top_k(y_true: Any, y_pred: Any, k: int = 5) -> float:
    """Share of samples whose class is among the `k` likeliest, in [0, 1].

    Args:
        y_true: ``(samples,)`` whole numbers.
        y_pred: ``(samples, classes)`` probabilities.
        k: How many.

    Raises:
        DataError: The two do not pair up, or predictions are not one row of classes a sample.

    Example:
        >>> top_k([2, 0], [[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]], k=2)
        0.5
    """
    truth, scores = _pair(y_true, y_pred)
    if scores.ndim != 2:
        raise DataError(f"predictions have shape {scores.shape}", hint="give (samples, classes)")
    likeliest = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((likeliest == truth[:, np.newaxis]).any(axis=1).mean())


def precision(y_true: Any, y_pred: Any) -> float:
    """Share of what was predicted as class 1 that is; with more classes, the mean over them.

    Args:
        y_true: ``(samples,)`` whole numbers.
        y_pred: Labels, or probabilities as a model predicts them.

    Returns:
        A number in [0, 1]; 0 where nothing was predicted as the class.

    Raises:
        DataError: The two do not pair up.

    Example:
        >>> precision([0, 1, 1], [1, 1, 1])
        0.6666666666666666
    """
    from sklearn import metrics

    return float(metrics.precision_score(*_classes(y_true, y_pred), **_over_classes(y_true)))


def recall(y_true: Any, y_pred: Any) -> float:
    """Share of class 1 that was found; with more classes, the mean over them.

    Args:
        y_true: ``(samples,)`` whole numbers.
        y_pred: Labels, or probabilities as a model predicts them.

    Returns:
        A number in [0, 1]; 0 where the class does not occur.

    Raises:
        DataError: The two do not pair up.

    Example:
        >>> recall([0, 1, 1], [0, 0, 1])
        0.5
    """
    from sklearn import metrics

    return float(metrics.recall_score(*_classes(y_true, y_pred), **_over_classes(y_true)))


def f1(y_true: Any, y_pred: Any) -> float:
    """Harmonic mean of precision and recall of class 1; with more classes, the mean over them.

    Args:
        y_true: ``(samples,)`` whole numbers.
        y_pred: Labels, or probabilities as a model predicts them.

    Returns:
        A number in [0, 1].

    Raises:
        DataError: The two do not pair up.

    Example:
        >>> f1([0, 1, 1], [1, 1, 1])
        0.8
    """
    from sklearn import metrics

    return float(metrics.f1_score(*_classes(y_true, y_pred), **_over_classes(y_true)))


def roc_auc(y_true: Any, y_pred: Any) -> float:
    """Area under the ROC curve: how often a sample of class 1 scores above one of class 0.

    Args:
        y_true: ``(samples,)`` whole numbers, at least two classes among them.
        y_pred: Scores ``(samples,)`` or ``(samples, 1)``, or probabilities ``(samples, classes)``,
            which give the mean of each class against the rest.

    Returns:
        A number in [0, 1]; 0.5 is chance.

    Raises:
        DataError: The two do not pair up, or hold one class only.

    Example:
        >>> roc_auc([0, 0, 1], [0.1, 0.4, 0.3])
        0.5
    """
    from sklearn import metrics

    truth, scores = _pair(y_true, y_pred)
    if scores.ndim == 2 and scores.shape[1] <= 2:
        scores = scores[:, -1]
    if len(np.unique(truth)) < 2:
        raise DataError("labels hold one class only", hint="the ROC curve needs two")
    return float(metrics.roc_auc_score(truth, scores, multi_class="ovr"))


def confusion_matrix(y_true: Any, y_pred: Any) -> NDArray[np.int64]:
    """How many samples of each class were taken for which.

    Args:
        y_true: ``(samples,)`` whole numbers.
        y_pred: Labels, or probabilities as a model predicts them.

    Returns:
        ``(classes, classes)`` counts: rows are true classes, columns predicted ones.

    Raises:
        DataError: The two do not pair up.

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 0, 1]).tolist()
        [[1, 0], [1, 1]]
    """
    from sklearn import metrics

    return metrics.confusion_matrix(*_classes(y_true, y_pred))


def mse(y_true: Any, y_pred: Any) -> float:
    """mean((prediction - target)^2), in the target's unit squared.

    Args:
        y_true: ``(samples,)`` or ``(samples, outputs)`` numbers.
        y_pred: As many numbers.

    Raises:
        DataError: The two do not pair up.

    Example:
        >>> mse([1.0, 2.0], [1.0, 4.0])
        2.0
    """
    from sklearn import metrics

    return float(metrics.mean_squared_error(*_numbers(y_true, y_pred)))


def mae(y_true: Any, y_pred: Any) -> float:
    """mean(|prediction - target|), in the target's unit.

    Args:
        y_true: ``(samples,)`` or ``(samples, outputs)`` numbers.
        y_pred: As many numbers.

    Raises:
        DataError: The two do not pair up.

    Example:
        >>> mae([1.0, 2.0], [1.0, 4.0])
        1.0
    """
    from sklearn import metrics

    return float(metrics.mean_absolute_error(*_numbers(y_true, y_pred)))


def r2(y_true: Any, y_pred: Any) -> float:
    """Share of the target's variance that is explained: 1 is perfect, 0 as good as its mean.

    Args:
        y_true: ``(samples,)`` or ``(samples, outputs)`` numbers, at least two samples.
        y_pred: As many numbers.

    Raises:
        DataError: The two do not pair up.

    Example:
        >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
        0.5
    """
    from sklearn import metrics

    return float(metrics.r2_score(*_numbers(y_true, y_pred)))


def _pair(y_true: Any, y_pred: Any) -> tuple[Array, Array]:
    truth, predictions = np.asarray(y_true), np.asarray(y_pred)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.shape[:1] != predictions.shape[:1] or truth.size == 0:
        raise DataError(
            f"labels have shape {truth.shape} and predictions {predictions.shape}",
            hint="give as many of one as of the other, and at least one",
        )
    return truth, predictions


def _classes(y_true: Any, y_pred: Any) -> tuple[Array, Array]:
    truth, predictions = _pair(y_true, y_pred)
    if predictions.ndim == 2 and predictions.shape[1] > 1:
        return truth, predictions.argmax(axis=1)
    predictions = predictions.reshape(len(predictions))
    return truth, (predictions >= 0.5).astype(int) if predictions.dtype.kind == "f" else predictions


def _numbers(y_true: Any, y_pred: Any) -> tuple[Array, Array]:
    truth, predictions = _pair(y_true, y_pred)
    if truth.size != predictions.size:
        raise DataError(f"labels have shape {truth.shape} and predictions {predictions.shape}")
    return truth, predictions.reshape(truth.shape)


def _over_classes(y_true: Any) -> dict[str, Any]:
    """Class 1 alone where there are two classes; a class that never occurs counts as zero."""
    return {"average": "binary" if np.max(y_true) <= 1 else "macro", "zero_division": 0}
