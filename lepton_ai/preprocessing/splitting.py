"""Splitting samples into training, validation and test sets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lepton_ai.errors import DataError

__all__ = ["Split", "train_validation_test_split"]


class Split(NamedTuple):
    """Three parts of one set of samples.

    Attributes:
        train: ``(x, y)`` to train on.
        validation: ``(x, y)`` to choose a model by.
        test: ``(x, y)`` to measure the chosen model on, once.

    Example:
        >>> split = Split(train=([1], [0]), validation=([2], [0]), test=([3], [1]))
        >>> x, y = split.test
    """

    train: tuple[Any, Any]
    validation: tuple[Any, Any]
    test: tuple[Any, Any]


def train_validation_test_split(
    x: Any,
    y: Any,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    stratify: bool = True,
    seed: int = 0,
) -> Split:
    """Split samples at random.

    Args:
        x: Data, first axis the samples: an array, a table or a list of texts.
        y: One label a sample.
        validation: Share for validation.
        test: Share for testing.
        stratify: Whether every part holds each class in the same share; False for numbers.
        seed: Makes the split repeatable.

    Raises:
        DataError: A part would be empty, or a class is too rare to be in every part.

    Example:
        >>> split = train_validation_test_split(np.arange(10), np.arange(10) % 2, test=0.2,
        ...     validation=0.2)
        >>> [len(labels) for _, labels in split]
        [6, 2, 2]
    """
    from sklearn.model_selection import train_test_split

    labels = np.asarray(y)
    if len(x) != len(labels):
        raise DataError(f"{len(x)} samples came with {len(labels)} labels")
    rows = np.arange(len(labels))
    try:
        rest, test_rows = train_test_split(
            rows, test_size=test, stratify=labels if stratify else None, random_state=seed
        )
        train_rows, validation_rows = train_test_split(
            rest,
            test_size=validation / (1 - test),
            stratify=labels[rest] if stratify else None,
            random_state=seed,
        )
    except (ValueError, ZeroDivisionError) as refusal:
        raise DataError(f"the samples cannot be split so: {refusal}") from None
    return Split(
        *((_take(x, part), _take(y, part)) for part in (train_rows, validation_rows, test_rows))
    )


def _take(values: Any, rows: Any) -> Any:
    if hasattr(values, "iloc"):
        return values.iloc[rows]
    if isinstance(values, list):
        return [values[row] for row in rows]
    return np.asarray(values)[rows]
