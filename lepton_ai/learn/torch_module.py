"""Any torch module as a model's only layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.learn.activations import ACTIVATIONS
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.declaration import nearest
from lepton_ai.learn.layers import Shape, TorchModule

__all__ = ["wrap"]


def wrap(module: Any, input_shape: Shape, activation: str) -> ModelConfig:
    """The config of `module`, whose output shape a batch of two zeros tells.

    Raises:
        InvalidArgumentError: Not a module, not an activation, or it fails on this shape.
    """
    if not isinstance(module, nn.Module):
        raise InvalidArgumentError(f"{type(module).__name__} is not a torch.nn.Module")
    if activation not in ACTIVATIONS:
        raise InvalidArgumentError(
            f"activation {activation!r} does not exist", hint=nearest(activation, ACTIVATIONS)
        )
    layer = TorchModule(module, _output_shape(module, input_shape), activation)
    return ModelConfig("torch", input_shape, (layer,))


def _output_shape(module: nn.Module, input_shape: Shape) -> Shape:
    training = module.training
    try:
        with torch.no_grad():
            output = module.eval()(torch.zeros(2, *input_shape))
    except RuntimeError as failure:
        raise InvalidArgumentError(
            f"the module fails on an input of shape (2, {', '.join(map(str, input_shape))})",
            hint=str(failure),
        ) from None
    finally:
        module.train(training)
    if not isinstance(output, Tensor) or len(output) != 2:
        raise InvalidArgumentError("the module must return one tensor with the batch first")
    return tuple(output.shape[1:])
