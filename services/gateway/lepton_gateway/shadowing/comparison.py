"""Whether two models say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_ai.oip import Tensor, to_float32

__all__ = ["Agreement", "compared", "row_count"]

_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
# Of the sum of a row of probabilities, which half precision rounds.
_ONE = 0.01
_CLASSES = 2  # at least
_Rows = NDArray[np.bool_]


class Agreement(NamedTuple):
    """How many rows were compared, and how many of them agree."""

    rows: int
    agreed: int


def compared(old: Sequence[Tensor], new: Sequence[Tensor], tolerance: float) -> Agreement:
    """How far two answers to one request agree, row by row.

    A row agrees if all its outputs do. Probabilities (rows of two numbers or more that are not
    negative and add up to 1) agree if the same class is the likeliest; other fractions if they
    differ by no more than `tolerance`, which beyond 1 is a part of them; everything else if it is
    equal. Outputs with other names, shapes or kinds of content never agree.

    Args:
        old: The outputs that count.
        new: Those they are compared with, in any order.
        tolerance: Of fractions.

    Example:
        >>> old = Tensor("y", "FP32", np.array([[0.1, 0.9], [0.7, 0.3]], np.float32))
        >>> new = Tensor("y", "FP32", np.array([[0.4, 0.6], [0.2, 0.8]], np.float32))
        >>> compared([old], [new], 0.01)
        Agreement(rows=2, agreed=1)
    """
    count = row_count(old)
    others = {tensor.name: tensor for tensor in new}
    agreeing = np.ones(count, np.bool_)
    if others.keys() != {tensor.name for tensor in old}:
        return Agreement(count, 0)
    for tensor in old:
        agreeing &= _agreeing_rows(tensor, others[tensor.name], count, tolerance)
    return Agreement(count, int(agreeing.sum()))


def row_count(outputs: Sequence[Tensor]) -> int:
    """Rows of an answer: 1 where its outputs do not share a first dimension."""
    lengths = {tensor.array.shape[0] if tensor.array.ndim else 1 for tensor in outputs}
    return lengths.pop() if len(lengths) == 1 else 1


def _agreeing_rows(old: Tensor, new: Tensor, count: int, tolerance: float) -> _Rows:
    fractions = {old.datatype in _FLOATS, new.datatype in _FLOATS}
    texts = {old.datatype == "BYTES", new.datatype == "BYTES"}
    if old.array.shape != new.array.shape or len(fractions) > 1 or len(texts) > 1:
        return np.zeros(count, np.bool_)
    if not old.array.size:
        return np.ones(count, np.bool_)
    mine, others = _rows(old, count), _rows(new, count)
    if old.datatype not in _FLOATS:
        return (mine == others).all(axis=1)
    if old.array.ndim == 2 and count == len(old.array) and _are_probabilities(mine):
        return mine.argmax(axis=1) == others.argmax(axis=1)
    scale = np.maximum(1.0, np.abs(mine))
    with np.errstate(invalid="ignore"):  # the difference of infinities
        close = (np.abs(mine - others) <= tolerance * scale) & np.isfinite(mine)
    same = (mine == others) | (np.isnan(mine) & np.isnan(others))
    return (close | same).all(axis=1)


def _rows(tensor: Tensor, count: int) -> NDArray[Any]:
    array = to_float32(tensor.array) if tensor.datatype == "BF16" else tensor.array
    flat = array.reshape(count, -1)
    return flat.astype(np.float64) if tensor.datatype in _FLOATS else flat


def _are_probabilities(rows: NDArray[Any]) -> bool:
    if rows.shape[1] < _CLASSES or not (rows >= 0).all():
        return False
    return bool((np.abs(rows.sum(axis=1) - 1) <= _ONE).all())
