"""What a run did, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lepton_ai.errors import NotFoundError
from lepton_ai.learn.declaration import nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["History"]


@dataclass
class History:
    """Loss and metrics by epoch; those of validation data begin with ``val_``.

    Attributes:
        seed: The seed of the run; `fit` with the same seed and data repeats it.
        epochs: One dict of name and value an epoch.

    Example:
        >>> history = History(seed=0, epochs=[{"loss": 2.0}, {"loss": 1.0}])
        >>> history["loss"]
        [2.0, 1.0]
    """

    seed: int
    epochs: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def __getitem__(self, name: str) -> list[float]:
        """The values of one metric, an epoch each.

        Raises:
            NotFoundError: No such metric was recorded; names the nearest.
        """
        names = self.names
        if name not in names:
            raise NotFoundError(f"the history has no {name!r}", hint=nearest(name, names))
        return [epoch[name] for epoch in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.epochs)

    @property
    def names(self) -> list[str]:
        """The names of what was recorded."""
        return list(self.epochs[0]) if self.epochs else []

    def to_dict(self) -> dict[str, Any]:
        """A form fit for JSON, from which `from_dict` makes an equal history.

        Example:
            >>> History(seed=0, epochs=[{"loss": 1.0}]).to_dict()
            {'seed': 0, 'epochs': [{'loss': 1.0}]}
        """
        return {"seed": self.seed, "epochs": self.epochs}

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> History:
        """The history that `to_dict` wrote.

        Example:
            >>> History.from_dict({"seed": 0, "epochs": [{"loss": 1.0}]})["loss"]
            [1.0]
        """
        return cls(seed=form["seed"], epochs=[dict(epoch) for epoch in form["epochs"]])

    def plot(self) -> Figure:
        """A matplotlib figure with one panel a metric, training and validation in each.

        Needs matplotlib. ``history.plot().savefig("history.png")`` writes it to a file.

        Example:
            >>> figure = History(seed=0, epochs=[{"loss": 2.0}, {"loss": 1.0}]).plot()
            >>> len(figure.axes)
            1
        """
        from matplotlib.figure import Figure

        names = [name for name in self.names if not name.startswith("val_")]
        figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
        numbers = range(1, len(self) + 1)
        for position, name in enumerate(names, start=1):
            axes = figure.add_subplot(1, len(names), position)
            for series in (name, f"val_{name}"):
                if series in self.names:
                    axes.plot(numbers, self[series], marker="o", label=series)
            axes.set_xlabel("epoch")
            axes.set_title(name)
            axes.legend()
        return figure
