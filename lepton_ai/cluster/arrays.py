"""A person's data as the columns of a stored split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import DataError

__all__ = ["Splits", "columns_of", "content_name"]

Splits = Mapping[str, Any]
"""By split name: an array ``x``, a pair ``(x, y)``, or a mapping of column names to arrays."""


def columns_of(split: str, data: Any) -> dict[str, NDArray[Any]]:
    """The columns of one split: "x" and "y" for a pair.

    Raises:
        DataError: Lengths differ, there are no rows, NaN or infinity.
    """
    columns = {name: _array(values) for name, values in _named(data).items()}
    for name, array in columns.items():
        _check(f"{name!r} of split {split!r}", array)
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise DataError(f"columns of split {split!r} differ in length: {told}")
    return columns


def content_name(columns: Mapping[str, Mapping[str, NDArray[Any]]]) -> str:
    """A dataset name that the same arrays always get."""
    digest = hashlib.blake2b(digest_size=12)
    for split, arrays in sorted(columns.items()):
        for name, array in sorted(arrays.items()):
            digest.update(repr((split, name, array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).data)
    return f"arrays-{digest.hexdigest()}"


def _named(data: Any) -> Mapping[str, Any]:
    if isinstance(data, Mapping):
        return data
    if isinstance(data, tuple):
        if len(data) != 2:
            raise DataError(f"{len(data)} arrays were given", hint="give (x, y)")
        return {"x": data[0], "y": data[1]}
    return {"x": data}


def _array(values: Any) -> NDArray[Any]:
    """As an array; a table's column of texts comes as objects."""
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(value, str) for value in array.flat):
        return array.astype(str)
    return array


def _check(what: str, array: NDArray[Any]) -> None:
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{what} is empty", hint="give at least one row")
    if array.dtype.kind not in "biufU":
        raise DataError(f"{what} is of type {array.dtype}", hint="give numbers or texts")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{what} has NaN or infinite values", hint="clean the data first")
