"""A model's outputs, put together from shards to one split without holding it in memory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import DataError, InvalidArgumentError
from lepton_ai.oip import to_float32
from lepton_ai.splits import HEADER_LENGTH_BYTES, Place, make_header, parse_header

__all__ = ["Output", "Predictions", "column_names", "kept"]

_MAX_NAME = 63


class Output(NamedTuple):
    """An output of a model: its name there, and its datatype in the inference protocol."""

    name: str
    datatype: str


def column_names(outputs: Sequence[str]) -> list[str]:
    """A column's name for each output: its own as far as names of columns allow, else its place.

    Example:
        >>> column_names(["output", "Dense/Softmax:0", "%"])
        ['output', 'dense_softmax_0', 'output_2']
    """
    names: list[str] = []
    for place, output in enumerate(outputs):
        name = re.sub(r"[^a-z0-9_-]+", "_", output.lower())[:_MAX_NAME].strip("_-")
        names.append(name if name and name not in names else f"output_{place}")
    return names


def kept(output: Output, values: NDArray[Any]) -> NDArray[Any]:
    """Values of an output as a column keeps them.

    Raises:
        InvalidArgumentError: They are texts.
    """
    if output.datatype == "BYTES":
        raise InvalidArgumentError(
            f"output {output.name!r} of the model holds texts",
            hint="a batch prediction keeps numbers: use a model that gives numbers",
        )
    return np.ascontiguousarray(to_float32(values) if output.datatype == "BF16" else values)


class Predictions:
    """Writes a split's file, shard by shard in any order.

    Args:
        path: The file.
        rows: Of the split.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        self._rows = rows
        self._columns: dict[str, Place] = {}

    def add(self, start: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Write the rows from `start` on.

        Raises:
            DataError: They are not shaped as those before: a split's rows are all alike.
        """
        if not self._columns:
            self._begin(columns)
        with self.path.open("r+b") as file:
            for name, array in columns.items():
                place = self._columns[name]
                if (array.dtype.name, array.shape[1:]) != (place.dtype, place.shape[1:]):
                    raise DataError(
                        f"output {name!r} has shape {array.shape[1:]} in row {start}, "
                        f"{place.shape[1:]} in others",
                        hint="a dataset's rows are all alike",
                    )
                os.pwrite(file.fileno(), array.tobytes(), place.offset + start * place.row_bytes)

    def columns(self) -> list[dict[str, Any]]:
        """Name, dtype and shape of a row of each column."""
        return [
            {"name": name, "dtype": place.dtype, "row_shape": list(place.shape[1:])}
            for name, place in self._columns.items()
        ]

    def _begin(self, columns: Mapping[str, NDArray[Any]]) -> None:
        header = make_header(
            {
                name: (array.dtype.name, (self._rows, *array.shape[1:]))
                for name, array in columns.items()
            }
        )
        self._columns = dict(parse_header(header[HEADER_LENGTH_BYTES:]))
        self.path.write_bytes(header)
