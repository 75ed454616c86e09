"""Optimizers by name, with torch's fused kernels underneath."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import override

from lepton_ai.learn.declaration import boolean, checked, fraction, number

if TYPE_CHECKING:
    from torch import nn, optim

__all__ = ["OPTIMIZERS", "Adam", "AdamW", "GradientDescent", "Optimizer", "RmsProp", "Sgd"]

_RATE = checked(number(above=0))
_FRACTION = checked(fraction)
_NOT_NEGATIVE = checked(number(0))


class Optimizer(ABC):
    """How gradients move weights. Weights, gradients and state are float32."""

    learning_rate: float

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        """The torch optimizer over `parameters`."""


@dataclass(frozen=True, kw_only=True)
class GradientDescent(Optimizer):
    """w <- w - learning_rate * gradient.

    Args:
        learning_rate: Step size.
    """

    learning_rate: float = field(default=0.01, metadata=_RATE)

    @override
    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        from torch import optim

        return optim.SGD(parameters, lr=self.learning_rate, fused=True)


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """Gradient descent with momentum: v <- momentum * v + gradient; w <- w - learning_rate * v.

    Args:
        learning_rate: Step size.
        momentum: Share of the last step's direction that is kept.
        nesterov: Whether the gradient is taken a step ahead (Sutskever et al., 2013).
        weight_decay: L2 penalty added to the gradient.
    """

    learning_rate: float = field(default=0.01, metadata=_RATE)
    momentum: float = field(default=0.9, metadata=_FRACTION)
    nesterov: bool = field(default=False, metadata=checked(boolean))
    weight_decay: float = field(default=0.0, metadata=_NOT_NEGATIVE)

    @override
    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        from torch import optim

        return optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam with bias-corrected moments (Kingma and Ba, 2015).

    m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2;
    w <- w - learning_rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)

    Args:
        learning_rate: Step size.
        beta_1: Decay of the first moment, b1.
        beta_2: Decay of the second moment, b2.
        epsilon: Added to the denominator.
    """

    learning_rate: float = field(default=0.001, metadata=_RATE)
    beta_1: float = field(default=0.9, metadata=_FRACTION)
    beta_2: float = field(default=0.999, metadata=_FRACTION)
    epsilon: float = field(default=1e-8, metadata=_RATE)

    @override
    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        from torch import optim

        return optim.Adam(
            parameters,
            lr=self.learning_rate,
            betas=(self.beta_1, self.beta_2),
            eps=self.epsilon,
            fused=True,
        )


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    Args:
        learning_rate: Step size.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        epsilon: Added to the denominator.
        weight_decay: Each step also takes ``learning_rate * weight_decay * w`` off each weight.
    """

    learning_rate: float = field(default=0.001, metadata=_RATE)
    beta_1: float = field(default=0.9, metadata=_FRACTION)
    beta_2: float = field(default=0.999, metadata=_FRACTION)
    epsilon: float = field(default=1e-8, metadata=_RATE)
    weight_decay: float = field(default=0.01, metadata=_NOT_NEGATIVE)

    @override
    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        from torch import optim

        return optim.AdamW(
            parameters,
            lr=self.learning_rate,
            betas=(self.beta_1, self.beta_2),
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            fused=True,
        )


@dataclass(frozen=True, kw_only=True)
class RmsProp(Optimizer):
    """Divides the gradient by a running root mean square (Tieleman and Hinton, 2012).

    s <- decay s + (1 - decay) g^2; w <- w - learning_rate * g / (sqrt(s) + epsilon)

    Args:
        learning_rate: Step size.
        decay: Share of the running mean that is kept.
        epsilon: Added to the denominator.
        momentum: Share of the last step that is kept.
    """

    learning_rate: float = field(default=0.001, metadata=_RATE)
    decay: float = field(default=0.9, metadata=_FRACTION)
    epsilon: float = field(default=1e-8, metadata=_RATE)
    momentum: float = field(default=0.0, metadata=_FRACTION)

    @override
    def build(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        from torch import optim

        return optim.RMSprop(
            parameters,
            lr=self.learning_rate,
            alpha=self.decay,
            eps=self.epsilon,
            momentum=self.momentum,
        )


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "gradient_descent": GradientDescent,
    "sgd": Sgd,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RmsProp,
}
