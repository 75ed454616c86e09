"""Losses by name. Each is the mean over a batch; classification losses are taken on logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from lepton_ai.errors import DataError, LayerError
from lepton_ai.learn.declaration import checked, number

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LOSSES",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
]

Array = NDArray[Any]
Shape = tuple[int, ...]


class Loss(ABC):
    """What training makes small."""

    activation: ClassVar[str | None] = None
    """The last activation this loss is computed before, from logits; None: from the outputs."""

    def check_model(self, name: str, output_shape: Shape, activation: str) -> None:
        """Refuse a model whose end does not fit this loss.

        Raises:
            LayerError: Says what the last layer needs.
        """
        if self.activation not in (None, activation):
            raise LayerError(
                f"loss {name!r} got a last layer with activation {activation!r}",
                hint=f"it needs {self.activation!r} there",
            )

    @abstractmethod
    def check_targets(self, targets: Array, output_shape: Shape) -> Array:
        """`targets` in the dtype and shape that `value` takes, first axis the samples.

        Raises:
            DataError: Labels out of range, or a shape that does not fit the outputs.
        """

    @abstractmethod
    def value(self, outputs: Tensor, targets: Tensor, class_weight: Tensor | None) -> Tensor:
        """The mean loss of a batch, a scalar.

        Args:
            outputs: ``(batch, *output_shape)``: logits if `activation` is set.
            targets: As `check_targets` returns them.
            class_weight: ``(classes,)``, or None. The mean is then weighted by each sample's class.
        """


class _Regression(Loss):
    @override
    def check_targets(self, targets: Array, output_shape: Shape) -> Array:
        return _as_outputs(targets, output_shape).astype(np.float32, copy=False)


@dataclass(frozen=True, kw_only=True)
class MeanSquaredError(_Regression):
    """mean((output - target)^2)."""

    @override
    def value(self, outputs: Tensor, targets: Tensor, class_weight: Tensor | None) -> Tensor:
        from torch.nn import functional

        return functional.mse_loss(outputs, targets)


@dataclass(frozen=True, kw_only=True)
class MeanAbsoluteError(_Regression):
    """mean(|output - target|)."""

    @override
    def value(self, outputs: Tensor, targets: Tensor, class_weight: Tensor | None) -> Tensor:
        from torch.nn import functional

        return functional.l1_loss(outputs, targets)


@dataclass(frozen=True, kw_only=True)
class Huber(_Regression):
    """Half the squared error up to `delta`, linear beyond (Huber, 1964).

    Args:
        delta: Error at which it turns linear, in units of the target.
    """

    delta: float = field(default=1.0, metadata=checked(number(above=0)))

    @override
    def value(self, outputs: Tensor, targets: Tensor, class_weight: Tensor | None) -> Tensor:
        from torch.nn import functional

        return functional.huber_loss(outputs, targets, delta=self.delta)


@dataclass(frozen=True, kw_only=True)
class BinaryCrossentropy(Loss):
    """-mean(t log p + (1 - t) log(1 - p)) for targets t of 0 or 1."""

    activation = "sigmoid"

    @override
    def check_targets(self, targets: Array, output_shape: Shape) -> Array:
        targets = _as_outputs(targets, output_shape)
        if not np.isin(targets, (0, 1)).all():
            raise DataError("binary labels must be 0 or 1", hint=_found(targets))
        return targets.astype(np.float32, copy=False)

    @override
    def value(self, outputs: Tensor, targets: Tensor, class_weight: Tensor | None) -> Tensor:
        from torch.nn import functional

        if class_weight is None:
            return functional.binary_cross_entropy_with_logits(outputs, targets)
        weights = class_weight[targets.long()]
        losses = functional.binary_cross_entropy_with_logits(
            outputs, targets, weights, reduction="sum"
        )
        return losses / weights.sum()


@dataclass(frozen=True, kw_only=True)
class CategoricalCrossentropy(Loss):
    """-mean(sum(t log p)) for targets t of ``(samples, classes)``, one-hot or probabilities."""

    activation = "softmax"

    @override
    def check_targets(self, targets: Array, output_shape: Shape) -> Array:
        if targets.shape[1:] != output_shape:
            raise DataError(
                f"labels have shape {targets.shape}",
                hint=f"one-hot labels for this model are (samples, {output_shape[0]})",
            )
        if not np.allclose(targets.sum(axis=-1), 1) or (targets < 0).any():
            raise DataError("each row of one-hot labels must be non-negative and sum to 1")
        return targets.astype(np.float32, copy=False)

    @override
    def value(self, outputs: Tensor, targets: Tensor, class_weight: Tensor | None) -> Tensor:
        losses = -(targets * outputs.log_softmax(dim=-1)).sum(dim=-1)
        if class_weight is None:
            return losses.mean()
        weights = targets @ class_weight
        return (losses * weights).sum() / weights.sum()


@dataclass(frozen=True, kw_only=True)
class SparseCategoricalCrossentropy(Loss):
    """-mean(log p[class]) for whole-number classes of ``(samples,)``."""

    activation = "softmax"

    @override
    def check_targets(self, targets: Array, output_shape: Shape) -> Array:
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = targets[:, 0]
        classes = output_shape[-1]
        if targets.ndim != 1 or targets.dtype.kind not in "iu":
            raise DataError(
                f"labels have shape {targets.shape} and dtype {targets.dtype}",
                hint="sparse labels are one whole number a sample",
            )
        if targets.size and (targets.min() < 0 or targets.max() >= classes):
            raise DataError(f"labels must lie in [0, {classes})", hint=_found(targets))
        return targets.astype(np.int64, copy=False)

    @override
    def value(self, outputs: Tensor, targets: Tensor, class_weight: Tensor | None) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets, weight=class_weight)


LOSSES: dict[str, type[Loss]] = {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "huber": Huber,
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}


def _as_outputs(targets: Array, output_shape: Shape) -> Array:
    """`targets` in the shape of the outputs; ``(samples,)`` stands for ``(samples, 1)``."""
    if targets.dtype.kind not in "biuf":
        raise DataError(f"labels have dtype {targets.dtype}", hint="they must be numbers")
    if targets.ndim == 1 and output_shape == (1,):
        return targets[:, np.newaxis]
    if targets.shape[1:] != output_shape:
        raise DataError(
            f"labels have shape {targets.shape}",
            hint=f"this model's outputs are (samples, {', '.join(map(str, output_shape))})",
        )
    return targets


def _found(targets: Array) -> str:
    return f"found values from {targets.min()} to {targets.max()}"
