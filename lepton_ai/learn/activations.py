"""Activations by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ACTIVATIONS", "POOLED_FIRST", "RECTIFIERS", "build_activation"]

ACTIVATIONS: dict[str, str] = {
    "linear": "Identity",
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "selu": "SELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "softplus": "Softplus",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softmax": "Softmax",
}
"""The `torch.nn` class of each activation."""

RECTIFIERS = frozenset({"relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus"})
"""Activations that let about half their input through, for which He's initialiser is meant."""

POOLED_FIRST = frozenset({"relu", "leaky_relu"})
"""Activations f with f(max(a, b)) = max(f(a), f(b)) to the last bit: max pooling may come first."""


def build_activation(name: str) -> nn.Module:
    """The module of an activation; softmax normalises the last axis."""
    from torch import nn

    if name == "softmax":
        return nn.Softmax(dim=-1)
    return getattr(nn, ACTIVATIONS[name])()
