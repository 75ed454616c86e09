"""Metrics that training accumulates batch by batch; `lepton_ai.metrics` has them for arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.learn.declaration import checked, whole
from lepton_ai.learn.losses import Loss

if TYPE_CHECKING:
    import torchmetrics

__all__ = ["METRICS", "Metric"]

Shape = tuple[int, ...]


class Metric(ABC):
    """One number for a model's predictions on a set of samples."""

    classifies: ClassVar[bool] = True
    """Whether it compares classes; otherwise numbers."""

    def check_loss(self, name: str, loss: Loss) -> None:
        """Refuse a metric that cannot be read from a model trained on `loss`.

        Raises:
            InvalidArgumentError: The metric compares classes and the loss numbers, or the reverse.
        """
        if self.classifies != (loss.activation is not None):
            kind = "classification" if self.classifies else "regression"
            raise InvalidArgumentError(f"metric {name!r} needs a {kind} loss")

    @abstractmethod
    def build(self, loss: Loss, output_shape: Shape) -> torchmetrics.Metric:
        """The accumulator, to be fed (predictions, targets)."""


class _Classification(Metric):
    torch_name: ClassVar[str]
    average: ClassVar[dict[str, str]] = {"average": "macro"}

    @override
    def build(self, loss: Loss, output_shape: Shape) -> torchmetrics.Metric:
        from torchmetrics import classification

        if loss.activation == "softmax":
            kind = getattr(classification, f"Multiclass{self.torch_name}")
            options = {"num_classes": output_shape[-1], **self.average}
        elif output_shape == (1,):
            kind, options = getattr(classification, f"Binary{self.torch_name}"), {}
        else:
            kind = getattr(classification, f"Multilabel{self.torch_name}")
            options = {"num_labels": output_shape[-1], **self.average}
        return kind(validate_args=False, **options)


@dataclass(frozen=True, kw_only=True)
class Accuracy(_Classification):
    """Share of samples (of labels, with several outputs) that are right."""

    torch_name = "Accuracy"
    average: ClassVar[dict[str, str]] = {"average": "micro"}


@dataclass(frozen=True, kw_only=True)
class Precision(_Classification):
    """Share of positives that are right; the mean over classes when there are several."""

    torch_name = "Precision"


@dataclass(frozen=True, kw_only=True)
class Recall(_Classification):
    """Share of true positives that were found; the mean over classes when there are several."""

    torch_name = "Recall"


@dataclass(frozen=True, kw_only=True)
class F1(_Classification):
    """Harmonic mean of precision and recall; the mean over classes when there are several."""

    torch_name = "F1Score"


@dataclass(frozen=True, kw_only=True)
class RocAuc(_Classification):
    """Area under the ROC curve, one class against the rest when there are several."""

    torch_name = "AUROC"


@dataclass(frozen=True, kw_only=True)
class TopK(Metric):
    """Share of samples whose class is among the `k` likeliest.

    Args:
        k: How many.
    """

    k: int = field(default=5, metadata=checked(whole(1)))

    @override
    def check_loss(self, name: str, loss: Loss) -> None:
        if loss.activation != "softmax":
            raise InvalidArgumentError(f"metric {name!r} needs a categorical loss")

    @override
    def build(self, loss: Loss, output_shape: Shape) -> torchmetrics.Metric:
        from torchmetrics import classification

        return classification.MulticlassAccuracy(
            num_classes=output_shape[-1],
            top_k=min(self.k, output_shape[-1]),
            average="micro",
            validate_args=False,
        )


class _Regression(Metric):
    classifies = False
    torch_name: ClassVar[str]

    @override
    def build(self, loss: Loss, output_shape: Shape) -> torchmetrics.Metric:
        from torchmetrics import regression

        kind: Any = getattr(regression, self.torch_name)
        return kind()


@dataclass(frozen=True, kw_only=True)
class MeanSquaredError(_Regression):
    """mean((prediction - target)^2)."""

    torch_name = "MeanSquaredError"


@dataclass(frozen=True, kw_only=True)
class MeanAbsoluteError(_Regression):
    """mean(|prediction - target|)."""

    torch_name = "MeanAbsoluteError"


@dataclass(frozen=True, kw_only=True)
class R2(_Regression):
    """1 - (squared error) / (variance of the targets), over all outputs at once."""

    torch_name = "R2Score"


METRICS: dict[str, type[Metric]] = {
    "accuracy": Accuracy,
    "top_k": TopK,
    "precision": Precision,
    "recall": Recall,
    "f1": F1,
    "roc_auc": RocAuc,
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "r2": R2,
}
