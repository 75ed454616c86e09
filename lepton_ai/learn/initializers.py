"""How weights start. Biases always start at zero."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import override

from lepton_ai.learn.activations import RECTIFIERS
from lepton_ai.learn.declaration import checked, number

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "INITIALIZERS",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "Normal",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "default_initializer",
]

_POSITIVE = checked(number(above=0))


class Initializer(ABC):
    """Fills a weight in place from torch's random generator."""

    @abstractmethod
    def fill(self, weight: Tensor) -> None:
        """Fill `weight`, whose first axis is its output and whose second is its input."""


@dataclass(frozen=True, kw_only=True)
class Normal(Initializer):
    """Normal with mean zero.

    Args:
        stddev: Standard deviation.
    """

    stddev: float = field(default=0.05, metadata=_POSITIVE)

    @override
    def fill(self, weight: Tensor) -> None:
        from torch import nn

        nn.init.normal_(weight, std=self.stddev)


@dataclass(frozen=True, kw_only=True)
class Uniform(Initializer):
    """Uniform in [-limit, limit].

    Args:
        limit: Largest magnitude.
    """

    limit: float = field(default=0.05, metadata=_POSITIVE)

    @override
    def fill(self, weight: Tensor) -> None:
        from torch import nn

        nn.init.uniform_(weight, -self.limit, self.limit)


@dataclass(frozen=True, kw_only=True)
class XavierUniform(Initializer):
    """Uniform, variance 2 / (inputs + outputs) (Glorot and Bengio, 2010)."""

    @override
    def fill(self, weight: Tensor) -> None:
        from torch import nn

        nn.init.xavier_uniform_(weight)


@dataclass(frozen=True, kw_only=True)
class XavierNormal(Initializer):
    """Normal, variance 2 / (inputs + outputs) (Glorot and Bengio, 2010)."""

    @override
    def fill(self, weight: Tensor) -> None:
        from torch import nn

        nn.init.xavier_normal_(weight)


@dataclass(frozen=True, kw_only=True)
class HeUniform(Initializer):
    """Uniform, variance 2 / inputs (He et al., 2015)."""

    @override
    def fill(self, weight: Tensor) -> None:
        from torch import nn

        nn.init.kaiming_uniform_(weight, nonlinearity="relu")


@dataclass(frozen=True, kw_only=True)
class HeNormal(Initializer):
    """Normal, variance 2 / inputs (He et al., 2015)."""

    @override
    def fill(self, weight: Tensor) -> None:
        from torch import nn

        nn.init.kaiming_normal_(weight, nonlinearity="relu")


INITIALIZERS: dict[str, type[Initializer]] = {
    "normal": Normal,
    "uniform": Uniform,
    "xavier_uniform": XavierUniform,
    "xavier_normal": XavierNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
}


def default_initializer(activation: str) -> Initializer:
    """He for activations that pass half their input, Xavier for the rest."""
    return HeUniform() if activation in RECTIFIERS else XavierUniform()
