"""Samples of a split that no node holds as a whole: each rank reads the rows of its own shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lepton_ai.learn import data
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.trainer import training_device
from lepton_ai.splits import HEADER_LENGTH_BYTES, Place, header_length, parse_header
from lepton_worker.chunked import ChunkedFile

__all__ = ["ShardedSamples", "Table"]


class Table:
    """The columns of a split in a `ChunkedFile`.

    Raises:
        DataError: The file is no split.
    """

    def __init__(self, file: ChunkedFile) -> None:
        self._file = file
        length = header_length(file.read(0, HEADER_LENGTH_BYTES))
        header = file.read(HEADER_LENGTH_BYTES, HEADER_LENGTH_BYTES + length)
        self.columns: Mapping[str, Place] = parse_header(header)

    @property
    def rows(self) -> int:
        """How many there are."""
        return next(iter(self.columns.values())).shape[0]

    def column(self, name: str) -> NDArray[Any]:
        """A column as a whole, in memory."""
        return self.take(name, np.arange(self.rows))

    def take(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The `rows` of a column, in that order."""
        place = self.columns[name]
        spans = list(_spans(place, rows))
        self._file.prefetch(spans)
        return place.decode(b"".join(self._file.read(*span) for span in spans))

    def prefetch(self, name: str, rows: NDArray[np.int64]) -> None:
        """Have the chunks of `rows` fetched, and do not wait for them."""
        self._file.prefetch(_spans(self.columns[name], rows))


class ShardedSamples:
    """What `Samples` is for arrays, with rows read, checked and converted when they are taken.

    Args:
        config: The model; its preprocessing is fitted.
        table: Has the columns x and y.
        samples: How many of its first rows count.
    """

    def __init__(self, config: ModelConfig, table: Table, samples: int) -> None:
        assert config.objective is not None
        self._config = config
        self._loss = config.objective.loss
        self._table = table
        self._samples = samples
        self._device = training_device()

    def __len__(self) -> int:
        return self._samples

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The samples at `indices`, on the device."""
        inputs = data.as_inputs(self._config, self._table.take("x", indices.numpy()))
        return torch.from_numpy(inputs).to(self._device), self.targets_of(indices)

    def targets_of(self, indices: Tensor) -> Tensor:
        """The targets at `indices`, on the device."""
        labels = self._table.take("y", indices.numpy())
        targets = data.as_targets(self._loss, labels, self._config.output_shape)
        return torch.from_numpy(targets).to(self._device)

    def prefetch(self, indices: NDArray[np.int64]) -> None:
        """Have the inputs at `indices` fetched soon."""
        self._table.prefetch("x", indices)


def _spans(place: Place, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where rows lie, those that follow each other together."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(rows, breaks):
        if len(run):
            start = place.offset + int(run[0]) * place.row_bytes
            yield start, start + len(run) * place.row_bytes
