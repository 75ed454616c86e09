"""What a cluster must offer for `fit` to train there: the seam between model and cluster."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lepton_ai.learn.history import History

__all__ = ["FitOptions", "FitRequest", "FitResult", "Room", "TrainingCluster"]


@dataclass(frozen=True)
class FitOptions:
    """How to train, apart from what; fit for JSON.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Samples in a step, over all workers together.
        validation_split: Last share of the data, held out; 0 for none.
        shuffle: Whether each epoch has an order of its own.
        seed: Seed of weights, order, dropout and augmentation.
    """

    epochs: int
    batch_size: int
    validation_split: float
    shuffle: bool
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """A form fit for JSON: ``FitOptions(**form)`` makes it equal again."""
        return asdict(self)


@dataclass(frozen=True)
class Room:
    """What to train on.

    Attributes:
        workers: The most workers, or None to leave it to the cluster.
        gpus: Accelerators for each.
        shards: Processes of each that the model is split over.
    """

    workers: int | None
    gpus: int
    shards: int


@dataclass(frozen=True)
class FitRequest:
    """One training run to do elsewhere.

    Attributes:
        config: `ModelConfig.to_dict` of a compiled model.
        training: ``(x, y)`` as the caller gave them; x may be a stored dataset's name, and y None
            where that dataset holds the labels.
        validation: ``(x, y)`` to measure on, a split's name for a stored dataset, or None.
        weights: A model file to start from (`lepton_ai.learn.files`), or None for fresh weights.
        options: How to train.
        room: Where to train.
    """

    config: dict[str, Any]
    training: tuple[Any, Any]
    validation: tuple[Any, Any] | str | None
    weights: bytes | None
    options: FitOptions
    room: Room


@dataclass(frozen=True)
class FitResult:
    """What came of it.

    Attributes:
        model: A model file: config with fitted preprocessing, and weights.
        history: Loss and metrics by epoch.
    """

    model: bytes
    history: History


class TrainingCluster(Protocol):
    """A cluster, as far as `fit` knows one."""

    def fit_model(self, request: FitRequest) -> FitResult:
        """Train there and wait for the result."""
        ...
