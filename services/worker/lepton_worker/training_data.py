"""What a rank trains on: arrays in memory, or a split too large for that, read as it is needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_ai.chunking import CHUNK_BYTES
from lepton_ai.errors import DataError
from lepton_ai.learn import data
from lepton_ai.learn.batches import BatchPlan, Windows
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.fitting import Samples
from lepton_ai.learn.trainer import training_device
from lepton_ai.splits import Place, read_split
from lepton_worker.chunked import ChunkedFile
from lepton_worker.sharded import ShardedSamples, Table
from lepton_worker.work import RankWork

__all__ = ["TrainingData", "open_data"]

_COLUMNS = ("x", "y")
_BLOCK_CHUNKS = 4
_Arrays = tuple[Any, Any]


@dataclass(frozen=True)
class TrainingData:
    """Samples, and the model fitted to them.

    Attributes:
        config: The model; its preprocessing is fitted.
        samples: To train on.
        validation: To measure on after each epoch, if anything.
        plan: Which samples make up which batch.
    """

    config: ModelConfig
    samples: Samples | ShardedSamples
    validation: Samples | None
    plan: BatchPlan


def open_data(work: RankWork, file: ChunkedFile | None) -> TrainingData:
    """The data of a rank.

    Args:
        work: The rank's work.
        file: The training split where it comes chunk by chunk; None where the work names a file.

    Raises:
        DataError: A split is not one that the model can be trained on.
    """
    config = ModelConfig.from_dict(json.loads(work.config))
    if file is None:
        return _in_memory(work, config, _checked(read_split(work.training)))
    table = Table(file)
    if not all(step.fitted for step in config.preprocessing):
        # What is learnt from all samples needs all of them, on every node.
        return _in_memory(work, config, {name: table.column(name) for name in _COLUMNS})
    return _sharded(work, config, table)


def _in_memory(work: RankWork, config: ModelConfig, columns: dict[str, Any]) -> TrainingData:
    training: _Arrays = (columns["x"], columns["y"])
    validation = _validation(work)
    if validation is None and work.validation_fraction:
        training, validation = data.split_validation(*training, work.validation_fraction)
    fitted = data.fit_preprocessing(config, training[0])
    samples = _of(fitted, training)
    return TrainingData(
        config=fitted,
        samples=samples,
        validation=_of(fitted, validation) if validation else None,
        plan=BatchPlan(len(samples), work.batch_size, work.seed, work.shuffle),
    )


def _sharded(work: RankWork, config: ModelConfig, table: Table) -> TrainingData:
    columns = _checked(dict(table.columns))
    validation, kept = _validation(work), table.rows
    if validation is None and work.validation_fraction:
        every = np.arange(table.rows)
        (training, _), (held_out, _) = data.split_validation(every, every, work.validation_fraction)
        kept = len(training)
        validation = (table.take("x", held_out), table.take("y", held_out))
    windows = _windows(columns["x"], kept, work)
    return TrainingData(
        config=config,
        samples=ShardedSamples(config, table, kept),
        validation=_of(config, validation) if validation else None,
        plan=BatchPlan(kept, work.batch_size, work.seed, work.shuffle, windows),
    )


def _windows(place: Place, samples: int, work: RankWork) -> Windows:
    """Windows of blocks of some chunks each: one that begins within a chunk needs one more."""
    block_bytes = _BLOCK_CHUNKS * CHUNK_BYTES
    block = max(1, block_bytes // max(1, place.row_bytes))
    return Windows(samples, work.batch_size, block, max(1, work.window_bytes // block_bytes))


def _validation(work: RankWork) -> _Arrays | None:
    if not work.validation:
        return None
    columns = _checked(read_split(work.validation))
    return columns["x"], columns["y"]


def _of(config: ModelConfig, arrays: _Arrays) -> Samples:
    assert config.objective is not None
    data.check_lengths(*arrays)
    targets = data.as_targets(config.objective.loss, arrays[1], config.output_shape)
    return Samples.of(data.as_inputs(config, arrays[0]), targets, training_device())


def _checked(columns: dict[str, Any]) -> dict[str, Any]:
    if not set(_COLUMNS) <= set(columns):
        raise DataError(f"the split has columns {sorted(columns)}", hint="x and y are needed")
    return columns
