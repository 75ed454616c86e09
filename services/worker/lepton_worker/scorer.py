"""The process of a rank that scores: a model runs over the shards that its agent names."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lepton_ai.chunking import CHUNK_BYTES
from lepton_ai.errors import InvalidArgumentError
from lepton_ai.learn.config import ModelConfig
from lepton_ai.oip import Tensor, as_tensor, batches_of
from lepton_worker.channel import AgentChannel
from lepton_worker.chunked import ChunkedFile
from lepton_worker.evaluation import Evaluation
from lepton_worker.inference.model import Model, ModelLimits
from lepton_worker.inference.options import ServingOptions
from lepton_worker.predictions import Output, Predictions, column_names, kept
from lepton_worker.sharded import Table
from lepton_worker.work import ScoreWork

__all__ = ["score"]

_INPUT, _LABELS = "x", "y"
_Arrays = Mapping[str, NDArray[Any]]


def score(work: ScoreWork, channel: AgentChannel) -> None:
    """Do what the agent says until it is gone.

    Raises:
        InvalidArgumentError: Model and data do not fit.
        UnavailableError: A part of the data cannot be had.
    """
    # Two shards, in columns that may lie across the edges of chunks.
    keep = 2 * (work.size_bytes * work.shard_rows // max(1, work.rows) // CHUNK_BYTES + 8)
    file = ChunkedFile(
        work.size_bytes,
        CHUNK_BYTES,
        keep,
        lambda numbers: channel.tell("chunks_wanted", numbers=numbers),
    )
    Path(work.folder).mkdir(parents=True, exist_ok=True)
    listener = _Listener(channel, file)
    listener.start()
    scorer = _Evaluator(work, file, channel) if work.config else _Predictor(work, file, channel)
    listener.scorer = scorer
    channel.tell("ready")
    while (asked := listener.requests.get()) is not None:
        match asked["op"]:
            case "shard":
                told = scorer.compute(asked["number"])
            case "merge":
                told = scorer.merge(asked["number"], Path(asked["path"]))
            case _:
                told = scorer.result()
        channel.tell("done", number=asked["number"], **told)


class _Scorer:
    """Runs a model over shards of a table."""

    def __init__(self, work: ScoreWork, file: ChunkedFile, channel: AgentChannel) -> None:
        self._work = work
        self._channel = channel
        self._table = Table(file)
        limits = ModelLimits(threads=work.threads, file_bytes=0)
        self._model = Model(Path(work.model).read_bytes(), ServingOptions(), limits)
        signature = self._model.signature
        self._batch = signature.max_batch_size
        if not self._batch:
            raise InvalidArgumentError(
                "the model does not take several rows at once",
                hint="export it with a free first dimension",
            )
        names = [spec.name for spec in signature.inputs]
        # Datasets call what a model takes x, where there is but one thing.
        self._columns = (
            [_INPUT] if len(names) == 1 and names[0] not in self._table.columns else names
        )
        self._outputs = [Output(spec.name, spec.datatype) for spec in signature.outputs]
        for column in self._columns:
            self._check_column(column)

    def compute(self, number: int) -> dict[str, Any]:
        """Compute a shard; says in which file its piece of the result is."""
        rows = self._rows(number)
        piece = self._piece(rows, self._run([self._table.take(c, rows) for c in self._columns]))
        path = Path(self._work.folder) / f"shard-{number}"
        # Whose it is makes it an object of its own: what one attempt drops, no other has.
        save_file(dict(piece), path, {"attempt": self._work.attempt, "shard": str(number)})
        return {"path": str(path)}

    def prefetch(self, number: int) -> None:
        """Have the inputs of a shard fetched soon; from any thread."""
        for column in self._columns:
            self._table.prefetch(column, self._rows(number))

    def merge(self, number: int, path: Path) -> dict[str, Any]:
        """Take a piece into the result."""
        self._add(number * self._work.shard_rows, load_file(path))
        return {}

    def result(self) -> dict[str, Any]:
        """What all pieces make."""
        raise NotImplementedError

    def _piece(self, rows: NDArray[np.int64], outputs: list[NDArray[Any]]) -> _Arrays:
        raise NotImplementedError

    def _add(self, start: int, piece: _Arrays) -> None:
        raise NotImplementedError

    def _run(self, columns: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs for some rows, as whoever asks a replica for them gets them."""
        specs = self._model.signature.inputs
        tensors = [as_tensor(*spec, values) for spec, values in zip(specs, columns, strict=True)]
        parts = [batches_of(tensor.array, self._batch) for tensor in tensors]
        outputs: list[list[NDArray[Any]]] = []
        for batch in zip(*parts, strict=True):
            given = [
                Tensor(spec.name, spec.datatype, array)
                for spec, array in zip(specs, batch, strict=True)
            ]
            outputs.append(self._model.run(self._model.signature.arrange(given)))
            self._channel.tell("batch")
        return [np.concatenate(each) for each in zip(*outputs, strict=True)]

    def _rows(self, number: int) -> NDArray[np.int64]:
        start = number * self._work.shard_rows
        return np.arange(start, min(start + self._work.shard_rows, self._work.rows))

    def _check_column(self, column: str) -> None:
        if column not in self._table.columns:
            raise InvalidArgumentError(
                f"the split has no column {column!r}",
                hint=f"the model takes it, and the split has {', '.join(self._table.columns)}",
            )


class _Predictor(_Scorer):
    """Keeps what the model gives."""

    def __init__(self, work: ScoreWork, file: ChunkedFile, channel: AgentChannel) -> None:
        super().__init__(work, file, channel)
        self._made = Predictions(Path(work.folder) / "predictions", work.rows)
        self._names = column_names([output.name for output in self._outputs])

    def result(self) -> dict[str, Any]:
        return {"path": str(self._made.path), "columns": self._made.columns()}

    def _piece(self, rows: NDArray[np.int64], outputs: list[NDArray[Any]]) -> _Arrays:
        named = zip(self._names, self._outputs, outputs, strict=True)
        return {name: kept(output, values) for name, output, values in named}

    def _add(self, start: int, piece: _Arrays) -> None:
        self._made.add(start, piece)


class _Evaluator(_Scorer):
    """Measures what the model gives."""

    def __init__(self, work: ScoreWork, file: ChunkedFile, channel: AgentChannel) -> None:
        super().__init__(work, file, channel)
        self._made = Evaluation(ModelConfig.from_dict(json.loads(work.config)))
        self._check_column(_LABELS)

    def result(self) -> dict[str, Any]:
        return {"metrics": self._made.results()}

    def _piece(self, rows: NDArray[np.int64], outputs: list[NDArray[Any]]) -> _Arrays:
        return self._made.measure(outputs[0], self._table.take(_LABELS, rows))

    def _add(self, start: int, piece: _Arrays) -> None:
        self._made.add(piece)


class _Listener(threading.Thread):
    """Hears the agent while the model runs: chunks cannot wait, and those to come are asked for."""

    def __init__(self, channel: AgentChannel, file: ChunkedFile) -> None:
        super().__init__(name="listener", daemon=True)
        self._channel = channel
        self._file = file
        self.scorer: _Scorer | None = None
        self.requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Hear until the agent is gone."""
        while (message := self._channel.hear()) is not None:
            match message["op"]:
                case "chunk":
                    self._file.came(message["number"], Path(message["path"]))
                case "chunk_failed":
                    self._file.failed(message["number"], message["reason"])
                case "shard" if self.scorer is not None:
                    self.scorer.prefetch(message["number"])
                    self.requests.put(message)
                case _:
                    self.requests.put(message)
        self.requests.put(None)
