"""Rows of raw input as a model takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import DataError
from lepton_ai.oip.datatypes import datatype_of, numpy_dtype
from lepton_ai.oip.tensor import Tensor

__all__ = ["as_tensor", "batches_of"]


def as_tensor(name: str, datatype: str, shape: tuple[int, ...], x: Any) -> Tensor:
    """Rows as a tensor of the type that a model takes.

    Args:
        name: Of the model's input.
        datatype: Of the model's input, as the protocol names it.
        shape: Of the model's input, -1 where any size will do.
        x: Rows. A last axis of size one, such as the channel of grey images, may be missing.

    Raises:
        DataError: There are no rows, or no lossless way to that type.
    """
    array = np.asarray(x, dtype=object) if datatype == "BYTES" else np.asarray(x)
    if array.ndim == 0 or len(array) == 0:
        raise DataError("there are no rows to predict", hint="give at least one")
    if array.ndim == len(shape) - 1 and shape[-1] == 1:
        array = array[..., np.newaxis]
    if datatype != "BYTES":
        array = _of_type(array, datatype)
    return Tensor(name, datatype, array)


def batches_of(array: NDArray[Any], rows: int) -> list[NDArray[Any]]:
    """`array` in parts of at most `rows` rows."""
    return [array[start : start + rows] for start in range(0, len(array), rows)]


def _of_type(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    dtype = numpy_dtype(datatype)
    if array.dtype == dtype:
        return array
    whole = array.dtype.kind in "biu"
    if dtype.kind == "f" and (whole or array.dtype.kind == "f"):
        return array.astype(dtype)
    if whole and dtype.kind in "iu" and np.array_equal(array, array.astype(dtype)):
        return array.astype(dtype)
    try:
        given = datatype_of(array.dtype)
    except ValueError:
        given = str(array.dtype)
    raise DataError(f"the model takes {datatype}, not {given}", hint="convert the data first")
