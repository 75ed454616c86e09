"""Splits of datasets: named arrays as one safetensors object, read whole or by rows.

The format is that of safetensors: eight bytes (little endian) give the length of a JSON header
that names each tensor's dtype, shape and place; the tensors follow, in C order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import DataError
from lepton_ai.names import check_name
from lepton_ai.proto.v1.storage_pb2 import Column, Split

__all__ = [
    "HEADER_LENGTH_BYTES",
    "MAX_HEADER_BYTES",
    "Place",
    "arrays_to_split",
    "check_split",
    "header_length",
    "parse_header",
    "split_to_arrays",
]

HEADER_LENGTH_BYTES = 8
MAX_HEADER_BYTES = 1024 * 1024
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
}
_ALLOWED = ", ".join(_DTYPES.values())


class Place(NamedTuple):
    """Where a tensor lies in a safetensors file: `offset` counts from the file's beginning."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize


def arrays_to_split(name: str, arrays: Mapping[str, NDArray[Any]]) -> tuple[Split, bytes]:
    """Encode arrays whose first axis is the row.

    Args:
        name: Of the split, such as ``"train"``.
        arrays: By column name; all have the same number of rows, at least one.

    Returns:
        The split, whose `object_id` is still to be filled in, and the bytes to store.

    Raises:
        InvalidArgumentError: A name is outside the pattern.
        DataError: No arrays or rows, lengths that differ, a dtype that cannot be kept, or NaN.

    Example:
        >>> split, data = arrays_to_split("train", {"x": np.zeros((2, 3)), "y": np.arange(2)})
        >>> split.rows
        2
    """
    from safetensors.numpy import save

    check_name("split", name)
    columns = {key: _checked(key, np.asarray(array)) for key, array in arrays.items()}
    rows = _rows(name, columns)
    split = Split(name=name, rows=rows)
    for key, array in columns.items():
        split.columns.add(name=key, dtype=array.dtype.name, row_shape=array.shape[1:])
    return split, save(columns)


def split_to_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Decode what `arrays_to_split` encoded.

    Raises:
        DataError: These are not the bytes of a split.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except SafetensorError:
        raise DataError("these are not the bytes of a split") from None


def header_length(first_bytes: bytes) -> int:
    """Length of the JSON header, from the file's first eight bytes.

    Raises:
        DataError: The file is too short, or the header larger than any split's.
    """
    length = int.from_bytes(first_bytes[:HEADER_LENGTH_BYTES], "little")
    if len(first_bytes) < HEADER_LENGTH_BYTES or not 0 < length <= MAX_HEADER_BYTES:
        raise DataError("the object is not a safetensors file")
    return length


def parse_header(header: bytes) -> dict[str, Place]:
    """Where each tensor lies, from the JSON header.

    Raises:
        DataError: It is not the header of a safetensors file, or a dtype is not known.
    """
    start = HEADER_LENGTH_BYTES + len(header)
    try:
        entries: dict[str, Any] = json.loads(header)
        entries.pop("__metadata__", None)
        return {
            name: Place(
                _DTYPES[entry["dtype"]],
                tuple(int(size) for size in entry["shape"]),
                start + int(entry["data_offsets"][0]),
            )
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise DataError(
            "the object is not a safetensors file of known dtypes", hint=_ALLOWED
        ) from None


def check_split(split: Split, places: Mapping[str, Place]) -> None:
    """Check what a split says of itself against what its object holds.

    Raises:
        DataError: They differ, or the split is empty.
    """
    if split.rows < 1 or not split.columns:
        raise DataError(f"split {split.name!r} is empty", hint="at least one row and one column")
    for column in split.columns:
        if column.name not in places:
            raise DataError(
                f"split {split.name!r} has no column {column.name!r}",
                hint=f"its object holds {', '.join(places)}",
            )
        _check_column(split, column, places[column.name])


def _check_column(split: Split, column: Column, place: Place) -> None:
    said = (column.dtype, (split.rows, *column.row_shape))
    held = (place.dtype, place.shape)
    if said != held:
        raise DataError(
            f"column {column.name!r} of split {split.name!r} is said to be {said[0]} {said[1]}",
            hint=f"its object holds {held[0]} {held[1]}",
        )


def _checked(key: str, array: NDArray[Any]) -> NDArray[Any]:
    check_name("column", key)
    if array.dtype.name not in _DTYPES.values():
        raise DataError(f"column {key!r} has dtype {array.dtype}", hint=f"one of {_ALLOWED}")
    if array.ndim == 0:
        raise DataError(f"column {key!r} is a single value", hint="an array with a row axis")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise DataError(f"column {key!r} contains NaN", hint="fill or drop those rows first")
    return np.ascontiguousarray(array)


def _rows(name: str, columns: Mapping[str, NDArray[Any]]) -> int:
    lengths = {key: len(array) for key, array in columns.items()}
    if not lengths or 0 in lengths.values():
        raise DataError(f"split {name!r} is empty", hint="at least one column and one row")
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{key}: {rows}" for key, rows in lengths.items())
        raise DataError(f"columns of split {name!r} differ in length ({text})")
    return next(iter(lengths.values()))
