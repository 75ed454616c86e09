"""Splits as safetensors bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from lepton_ai.errors import DataError, InvalidArgumentError
from lepton_ai.proto.v1.storage_pb2 import Split
from lepton_ai.splits import (
    HEADER_LENGTH_BYTES,
    arrays_to_split,
    check_split,
    header_length,
    parse_header,
    read_split,
)

TEXTS = np.array(["", "lépton", "日本", "a" * 300])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splits")


DTYPES = ["bool", "uint8", "int16", "int64", "uint64", "float16", "float32", "float64"]


def places(data: bytes) -> Any:
    length = header_length(data[:HEADER_LENGTH_BYTES])
    return parse_header(data[HEADER_LENGTH_BYTES : HEADER_LENGTH_BYTES + length])


@given(st.data(), st.sampled_from(DTYPES), st.integers(1, 5))
def test_arrays_come_back_and_rows_lie_where_the_header_says(
    folder: Path, data: st.DataObject, dtype: str, rows: int
) -> None:
    shape = (rows, *data.draw(st_numpy.array_shapes(min_dims=0, max_dims=3, max_side=3)))
    elements = st_numpy.from_dtype(np.dtype(dtype), allow_nan=False)
    x = data.draw(st_numpy.arrays(dtype, shape, elements=elements))
    split, content = arrays_to_split("train", {"x": x, "y": np.arange(rows)})
    path = folder / "split"
    path.write_bytes(content)
    back = read_split(path)
    np.testing.assert_array_equal(back["x"], x)
    assert back["x"].dtype == x.dtype
    check_split(split, places(content))
    place = places(content)["x"]
    last = place.offset + (rows - 1) * place.row_bytes
    np.testing.assert_array_equal(
        np.frombuffer(content[last : last + place.row_bytes], dtype).reshape(shape[1:]), x[-1]
    )


def test_texts_come_back_and_rows_lie_where_the_header_says(folder: Path) -> None:
    split, content = arrays_to_split("train", {"x": TEXTS, "y": np.arange(4)})
    assert [(column.name, column.dtype) for column in split.columns] == [
        ("x", "str"),
        ("y", "int64"),
    ]
    (folder / "texts").write_bytes(content)
    back = read_split(folder / "texts")
    assert back["x"].tolist() == TEXTS.tolist()
    check_split(split, places(content))
    place = places(content)["x"]
    second = place.offset + place.row_bytes
    assert place.decode(content[second : second + 2 * place.row_bytes]).tolist() == [
        "lépton",
        "日本",
    ]


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({}, "is empty"),
        ({"x": np.zeros((0, 2))}, "is empty"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, "x: 2, y: 3"),
        ({"x": np.array([0.0, np.nan])}, "contains NaN"),
        ({"x": np.array([["a"]])}, "dtype"),
        ({"x": np.array(["a" * 70_000])}, "shorten"),
        ({"x": np.array([{}])}, "dtype"),
        ({"x": np.array(1.0)}, "row axis"),
    ],
)
def test_arrays_that_cannot_be_a_split(arrays: dict[str, NDArray[Any]], text: str) -> None:
    with pytest.raises(DataError, match=text):
        arrays_to_split("train", arrays)


def test_names_are_checked() -> None:
    with pytest.raises(InvalidArgumentError, match="split name"):
        arrays_to_split("../x", {"x": np.zeros(1)})
    with pytest.raises(InvalidArgumentError, match="column name"):
        arrays_to_split("train", {"X/": np.zeros(1)})


def _rows(split: Split) -> None:
    split.rows = 3


def _dtype(split: Split) -> None:
    split.columns[0].dtype = "uint8"


def _shape(split: Split) -> None:
    split.columns[0].row_shape[:] = [5]


def _name(split: Split) -> None:
    split.columns[0].name = "z"


def _empty(split: Split) -> None:
    split.rows = 0


@pytest.mark.parametrize("change", [_rows, _dtype, _shape, _name, _empty])
def test_a_split_that_is_not_what_it_says_is_refused(change: Callable[[Split], None]) -> None:
    split, content = arrays_to_split("train", {"x": np.zeros((2, 4), np.float32)})
    change(split)
    with pytest.raises(DataError):
        check_split(split, places(content))


@pytest.mark.parametrize("header", [b"", b"[]", b'{"x": 1}', b'{"x": {"dtype": "F8"}}', b"\xff"])
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(DataError):
        parse_header(header)


@pytest.mark.parametrize("first", [b"", bytes(8), b"\xff" * 8])
def test_what_is_no_safetensors_file_is_refused(first: bytes) -> None:
    with pytest.raises(DataError):
        header_length(first)


def test_other_bytes_are_no_split(folder: Path) -> None:
    (folder / "other").write_bytes(b"other bytes")
    with pytest.raises(DataError):
        read_split(folder / "other")
