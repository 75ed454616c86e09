"""The kinds of models: for images, for sequences, for anything, and around any torch module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_ai.learn.config import declare_model
from lepton_ai.learn.files import read_model
from lepton_ai.learn.model import Model, restore

if TYPE_CHECKING:
    from lepton_ai.preprocessing.steps import PreprocessingStep

__all__ = ["CNN", "RNN", "Sequential", "from_torch", "load"]


class CNN(Model):
    """A convolutional network over images.

    Args:
        input_shape: ``(height, width, channels)`` of one image, in pixels.
        layers: Names, or tuples of a name and parameters; see `lepton_ai.learn.layers`.
        preprocessing: Steps between raw data and the first layer, fitted by `fit` and exported
            with the model; see `lepton_ai.preprocessing`.

    Raises:
        LayerError: The layers cannot become a model; says which layer, what it got and needs.

    Example:
        >>> model = CNN(
        ...     input_shape=(28, 28, 1),
        ...     layers=[
        ...         ("conv", {"filters": 8, "kernel_size": (3, 3), "activation": "relu"}),
        ...         ("pool", {"pool_size": (2, 2)}),
        ...         ("flatten"),
        ...         ("dense", {"units": 10, "activation": "softmax"}),
        ...     ],
        ... )
        >>> model.config.output_shape
        (10,)
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        layers: Sequence[object],
        preprocessing: Sequence[PreprocessingStep] = (),
    ) -> None:
        super().__init__(declare_model("CNN", input_shape, layers, preprocessing))


class RNN(Model):
    """A recurrent network over sequences.

    Args:
        input_shape: ``(steps, features)`` of one sequence, or ``(steps,)`` of tokens for a first
            layer ``embedding``.
        layers: Names, or tuples of a name and parameters; see `lepton_ai.learn.layers`.
        preprocessing: Steps between raw data and the first layer, such as a `Tokenizer`.

    Raises:
        LayerError: The layers cannot become a model; says which layer, what it got and needs.

    Example:
        >>> model = RNN((12, 1), [("lstm", {"units": 16}), ("dense", {"units": 1})])
        >>> model.config.output_shape
        (1,)
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        layers: Sequence[object],
        preprocessing: Sequence[PreprocessingStep] = (),
    ) -> None:
        super().__init__(declare_model("RNN", input_shape, layers, preprocessing))


class Sequential(Model):
    """Any stack of layers: dense networks, linear and logistic regression.

    Args:
        input_shape: Shape of one sample, features or channels last.
        layers: Names, or tuples of a name and parameters; see `lepton_ai.learn.layers`.
        preprocessing: Steps between raw data and the first layer, such as a `StandardScaler`.

    Raises:
        LayerError: The layers cannot become a model; says which layer, what it got and needs.

    Example:
        >>> logistic = Sequential((4,), [("dense", {"units": 1, "activation": "sigmoid"})])
        >>> logistic.compile(loss="binary_crossentropy", metrics=["accuracy"])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        layers: Sequence[object],
        preprocessing: Sequence[PreprocessingStep] = (),
    ) -> None:
        super().__init__(declare_model("Sequential", input_shape, layers, preprocessing))


def from_torch(module: Any, input_shape: Sequence[int], *, activation: str = "linear") -> Model:
    """A model around any `torch.nn.Module`, with the weights it has.

    Args:
        module: Takes float32 ``(batch, *input_shape)`` and returns one tensor ``(batch, ...)``.
            It is used as it is, not copied.
        input_shape: Shape of one sample, in the order the module takes it.
        activation: What turns the module's outputs into predictions: ``'softmax'`` or
            ``'sigmoid'`` for a module that returns logits, ``'linear'`` to leave them.

    Raises:
        InvalidArgumentError: `module` is not a module, or fails on an input of this shape.

    Example:
        >>> import torch
        >>> model = from_torch(torch.nn.Linear(2, 3), (2,), activation="softmax")
        >>> model.predict([[0.0, 0.0]]).shape
        (1, 3)
    """
    from lepton_ai.learn.network import build_module
    from lepton_ai.learn.torch_module import wrap

    config = wrap(module, tuple(input_shape), activation)
    return Model(config, build_module(config, seed=0))


def load(path: str | Path) -> Model:
    """Read a model that `Model.save` or a `Checkpoint` wrote.

    Raises:
        NotFoundError: There is no such file.
        DataCorruptError: It is not a model file.

    Example:
        >>> load("nowhere.safetensors")
        Traceback (most recent call last):
            ...
        lepton_ai.errors.NotFoundError: there is no model file nowhere.safetensors
    """
    return restore(read_model(path))
