"""How good a model's outputs are: measured shard by shard, then put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lepton_ai.errors import DataError
from lepton_ai.learn import data
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.trainer import Meter, objective_of

__all__ = ["Evaluation"]

# Beyond it, numbers for each class would not fit a job's record.
_MAX_CLASSES = 1000
_CLASSES = "~classes"
_THRESHOLD = 0.5


class Evaluation:
    """Loss, the model's metrics, and for each class precision, recall, F1 and how many there are.

    Args:
        config: A compiled model.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._loss = objective_of(config).loss
        self._meter = Meter(config)
        self._classes: Tensor | None = None

    def measure(self, outputs: NDArray[Any], labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What `add` takes of some rows.

        Args:
            outputs: Of the model as it is served, first axis the rows.
            labels: What they should be, as for training.

        Raises:
            DataError: Outputs or labels are not those of this model.
        """
        if outputs.shape[1:] != self._config.output_shape:
            raise DataError(
                f"the model's outputs have shape {outputs.shape}",
                hint=f"its configuration says (rows, {self._config.output_shape})",
            )
        targets = torch.from_numpy(
            data.as_targets(self._loss, labels, self._config.output_shape).copy()
        )
        found = torch.from_numpy(outputs).float()
        seen = _before_activation(found, self._loss.activation)
        meter = Meter(self._config)
        meter.add(self._loss.value(seen, targets, None), seen, targets)
        tensors = meter.state()
        if self._loss.activation is not None:
            tensors[_CLASSES] = _class_counts(found, targets, self._loss.activation)
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def add(self, measures: Mapping[str, NDArray[Any]]) -> None:
        """Take in what was measured of some rows."""
        tensors = {name: torch.from_numpy(array) for name, array in measures.items()}
        counts = tensors.pop(_CLASSES, None)
        if counts is not None:
            self._classes = counts if self._classes is None else self._classes + counts
        self._meter.merge(tensors)

    def results(self) -> dict[str, float]:
        """All metrics over all rows that were taken in, those of class 3 as ``recall[3]``."""
        results = self._meter.results()
        if self._classes is not None and self._classes.shape[1] <= _MAX_CLASSES:
            for number, counts in enumerate(self._classes.T.tolist()):
                results |= {f"{name}[{number}]": v for name, v in _of_class(*counts).items()}
        return results


def _before_activation(outputs: Tensor, activation: str | None) -> Tensor:
    """What the loss takes: logits that give these outputs, or the outputs themselves."""
    if activation == "softmax":
        return outputs.clamp_min(torch.finfo(torch.float32).tiny).log()
    if activation == "sigmoid":
        edge = torch.finfo(torch.float32).eps / 2
        return outputs.clamp(edge, 1 - edge).logit()
    return outputs


def _class_counts(outputs: Tensor, targets: Tensor, activation: str) -> Tensor:
    """``(3, classes)``: how often each class was said, was right to be said, and was there."""
    count = outputs.shape[-1]
    if activation == "softmax":
        classes = targets.argmax(dim=-1) if targets.ndim == outputs.ndim else targets
        said, there = _one_hot(outputs.argmax(dim=-1), count), _one_hot(classes, count)
    else:
        said = (outputs > _THRESHOLD).reshape(-1, count)
        there = targets.bool().reshape(-1, count)
    if count == 1:  # one number says which of two classes it is
        said, there = torch.cat([~said, said], 1), torch.cat([~there, there], 1)
    return torch.stack([said.sum(0), (said & there).sum(0), there.sum(0)])


def _one_hot(classes: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(classes.reshape(-1).long(), count).bool()


def _of_class(said: int, right: int, there: int) -> dict[str, float]:
    """Precision is 0 where a class was never said, recall where it is not there."""
    return {
        "precision": right / said if said else 0.0,
        "recall": right / there if there else 0.0,
        "f1": 2 * right / (said + there) if said + there else 0.0,
        "rows": float(there),
    }
