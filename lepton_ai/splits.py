"""Splits of datasets: named arrays as one safetensors object, read whole or by rows.

The format is that of safetensors: eight bytes (little endian) give the length of a JSON header
that names each tensor's dtype, shape and place; the tensors follow, in C order. Texts are kept as
rows of UTF-8, padded with zero bytes to the longest; the metadata entry ``texts`` lists their
columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
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
    "make_header",
    "parse_header",
    "read_split",
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
_TEXT = "str"
_ALLOWED = ", ".join([*_DTYPES.values(), _TEXT])
_MAX_TEXT_BYTES = 64 * 1024
_TEXTS = "texts"


class Place(NamedTuple):
    """Where a column lies in a safetensors file: `offset` counts from the file's beginning.

    Texts have the dtype ``str``, and `text_bytes` for each.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    text_bytes: int = 0

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        if self.dtype == _TEXT:
            return self.text_bytes
        return int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def decode(self, rows: bytes) -> NDArray[Any]:
        """Whole rows of the column as an array."""
        if self.dtype == _TEXT:
            return _as_texts(np.frombuffer(rows, np.uint8).reshape(-1, self.text_bytes))
        return np.frombuffer(rows, self.dtype).reshape(-1, *self.shape[1:])


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
    columns = {key: np.asarray(array) for key, array in arrays.items()}
    texts = [key for key, array in columns.items() if array.dtype.kind == "U"]
    tensors = {key: _checked(key, _encoded(key, array)) for key, array in columns.items()}
    split = Split(name=name, rows=_rows(name, tensors))
    for key, array in columns.items():
        dtype = _TEXT if key in texts else array.dtype.name
        split.columns.add(name=key, dtype=dtype, row_shape=array.shape[1:])
    return split, save(tensors, {_TEXTS: json.dumps(texts)})


def read_split(path: str | Path) -> dict[str, NDArray[Any]]:
    """The columns of a split that was stored in a file.

    Raises:
        DataError: The file is not a split.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            texts = json.loads((file.metadata() or {}).get(_TEXTS, "[]"))
            names: list[str] = file.keys()
            columns: dict[str, NDArray[Any]] = {key: file.get_tensor(key) for key in names}
            return columns | {key: _as_texts(columns[key]) for key in texts}
    except (SafetensorError, ValueError, KeyError):
        raise DataError("this is not the file of a split") from None


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
        texts = json.loads(entries.pop("__metadata__", {}).get(_TEXTS, "[]"))
        return {name: _place(entry, start, name in texts) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise DataError(
            "the object is not a safetensors file of known dtypes", hint=_ALLOWED
        ) from None


def make_header(columns: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """What a split's file begins with, up to the first column.

    Args:
        columns: Each column's dtype, as NumPy names it, and shape; first axis the rows. They follow
            each other in the file in this order.
    """
    entries: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in columns.items():
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        code = next(code for code, known in _DTYPES.items() if known == dtype)
        entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % HEADER_LENGTH_BYTES)
    return len(text).to_bytes(HEADER_LENGTH_BYTES, "little") + text


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


def _place(entry: Mapping[str, Any], start: int, is_text: bool) -> Place:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"])
    offset = start + int(entry["data_offsets"][0])
    if not is_text:
        return Place(dtype, shape, offset)
    rows, text_bytes = shape
    return Place(_TEXT, (rows,), offset, text_bytes)


def _encoded(key: str, array: NDArray[Any]) -> NDArray[Any]:
    """`array`, or the bytes of its texts."""
    if array.dtype.kind != "U" or array.ndim != 1 or not len(array):
        return array
    encoded = np.char.encode(array, "utf-8")
    if encoded.itemsize > _MAX_TEXT_BYTES:
        raise DataError(
            f"a text in column {key!r} has {encoded.itemsize} bytes",
            hint=f"a text may have {_MAX_TEXT_BYTES}: shorten it or split it",
        )
    return encoded.view(np.uint8).reshape(len(array), -1)


def _as_texts(rows: NDArray[Any]) -> NDArray[Any]:
    if rows.dtype != np.uint8 or rows.ndim != 2 or not rows.shape[1]:
        raise DataError("a column of texts is not one")
    padded = np.ascontiguousarray(rows).view(f"S{rows.shape[1]}").reshape(len(rows))
    return np.char.decode(padded, "utf-8")


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
