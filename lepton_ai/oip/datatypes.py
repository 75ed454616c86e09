"""The protocol's datatypes and what NumPy makes of them."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np

from lepton_ai.errors import InvalidArgumentError

# BF16 has no NumPy type of its own: its bit patterns are carried as uint16.
# BYTES elements are Python `bytes` in an object array.
_NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_DATATYPE: dict[np.dtype[Any], str] = {
    dtype: datatype for datatype, dtype in _NUMPY.items() if datatype != "BF16"
}


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """The NumPy type of one element.

    Args:
        datatype: A datatype of the protocol, such as ``"FP32"``.

    Raises:
        InvalidArgumentError: The protocol has no such datatype.

    Example:
        >>> numpy_dtype("FP32")
        dtype('float32')
    """
    try:
        return _NUMPY[datatype]
    except (KeyError, TypeError):
        raise InvalidArgumentError(
            f"datatype {datatype!r} does not exist", hint=_datatype_hint(datatype)
        ) from None


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The datatype of the protocol that fits a NumPy type; texts travel as BYTES.

    Raises:
        InvalidArgumentError: The protocol has nothing for this type.

    Example:
        >>> datatype_of(np.dtype("int64"))
        'INT64'
    """
    if dtype.kind in "SU":
        return "BYTES"
    try:
        return _DATATYPE[dtype.newbyteorder("<")]
    except KeyError:
        raise InvalidArgumentError(
            f"arrays of {dtype} cannot be sent", hint=f"convert to one of {_names(_DATATYPE)}"
        ) from None


def _datatype_hint(datatype: object) -> str:
    nearest = difflib.get_close_matches(str(datatype).upper(), _NUMPY, n=1)
    allowed = f"allowed are {', '.join(_NUMPY)}"
    return f"did you mean {nearest[0]!r}? {allowed}" if nearest else allowed


def _names(dtypes: dict[np.dtype[Any], str]) -> str:
    return ", ".join(str(dtype) for dtype in dtypes)
