"""The layers a model can be declared from: their parameters and the shapes they turn out.

Nothing here needs torch, so that a layer list can be refused long before anything is built.
Shapes leave out the batch and put channels (or features) last, as in ``(28, 28, 1)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import override

from lepton_ai.errors import LayerError
from lepton_ai.learn.activations import ACTIVATIONS
from lepton_ai.learn.declaration import (
    boolean,
    checked,
    declare,
    declared,
    fraction,
    number,
    one_of,
    pair,
    whole,
)
from lepton_ai.learn.initializers import INITIALIZERS, Initializer

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "LAYERS",
    "Activation",
    "BatchNorm",
    "Conv",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalPool",
    "Gru",
    "Layer",
    "LayerNorm",
    "Lstm",
    "Pool",
    "Recurrent",
    "Rnn",
    "Shape",
    "TorchModule",
    "declare_layers",
    "layer_name",
    "layer_shapes",
]

Shape = tuple[int, ...]
Pair = tuple[int, int]

_ACTIVATION = checked(one_of(ACTIVATIONS))


_INITIALIZER = declared(INITIALIZERS)


class Layer(ABC):
    """One declared layer."""

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape this layer makes of `shape`.

        Raises:
            ValueError: The shapes cannot meet; the text says what the layer needs.
        """


@dataclass(frozen=True, kw_only=True)
class Conv(Layer):
    """2-D convolution over ``(height, width, channels)``, then an activation.

    Args:
        filters: Channels it turns out.
        kernel_size: Height and width of the window, in pixels.
        strides: Step of the window, in pixels.
        padding: ``'valid'`` uses whole windows only; ``'same'`` pads with zeros so that the output
            has ``ceil(input / stride)`` rows and columns.
        activation: Name of the activation.
        initializer: How weights start; by default He for ReLU-like activations, else Xavier.
            Biases start at zero.
    """

    filters: int = field(metadata=checked(whole(1)))
    kernel_size: Pair = field(default=(3, 3), metadata=checked(pair))
    strides: Pair = field(default=(1, 1), metadata=checked(pair))
    padding: str = field(default="valid", metadata=checked(one_of(("valid", "same"))))
    activation: str = field(default="linear", metadata=_ACTIVATION)
    initializer: Initializer | None = field(default=None, metadata=_INITIALIZER)

    @override
    def output_shape(self, shape: Shape) -> Shape:
        height, width, _ = _image(shape)
        if self.padding == "same":
            sides = tuple(-(-side // step) for side, step in zip(shape, self.strides, strict=False))
            return (*sides, self.filters)
        sides = _windows((height, width), self.kernel_size, self.strides)
        return (*sides, self.filters)


@dataclass(frozen=True, kw_only=True)
class Pool(Layer):
    """The largest value (or the mean) of each window of ``(height, width, channels)``.

    Args:
        pool_size: Height and width of the window, in pixels.
        strides: Step of the window, in pixels; by default the window's own size.
        mode: ``'max'`` or ``'average'``.
    """

    pool_size: Pair = field(default=(2, 2), metadata=checked(pair))
    strides: Pair | None = field(default=None, metadata=checked(pair))
    mode: str = field(default="max", metadata=checked(one_of(("max", "average"))))

    @override
    def output_shape(self, shape: Shape) -> Shape:
        height, width, channels = _image(shape)
        return (
            *_windows((height, width), self.pool_size, self.strides or self.pool_size),
            channels,
        )


@dataclass(frozen=True, kw_only=True)
class GlobalPool(Layer):
    """The mean (or largest) value of each feature over all steps of a sequence or all pixels.

    Args:
        mode: ``'average'`` or ``'max'``.
    """

    mode: str = field(default="average", metadata=checked(one_of(("average", "max"))))

    @override
    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            raise ValueError("a sequence of shape (steps, features) or an image")
        return shape[-1:]


@dataclass(frozen=True, kw_only=True)
class Flatten(Layer):
    """Everything of one sample in one row, channels varying fastest."""

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


@dataclass(frozen=True, kw_only=True)
class Dense(Layer):
    """A fully connected layer over ``(features,)``, then an activation.

    Args:
        units: Features it turns out.
        activation: Name of the activation.
        initializer: How weights start; by default He for ReLU-like activations, else Xavier.
            Biases start at zero.
    """

    units: int = field(metadata=checked(whole(1)))
    activation: str = field(default="linear", metadata=_ACTIVATION)
    initializer: Initializer | None = field(default=None, metadata=_INITIALIZER)

    @override
    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise ValueError(f"one row of features, not {shape}; put 'flatten' before it")
        return (self.units,)


@dataclass(frozen=True, kw_only=True)
class Dropout(Layer):
    """Zeroes a random share of its input while training, and scales the rest up to match.

    Args:
        rate: Share that is zeroed, in [0, 1).
    """

    rate: float = field(default=0.5, metadata=checked(fraction))

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, kw_only=True)
class Activation(Layer):
    """An activation on its own.

    Args:
        function: Name of the activation.
    """

    function: str = field(metadata=_ACTIVATION)

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Layer):
    """Normalises each channel over the batch (Ioffe and Szegedy, 2015).

    Args:
        momentum: Share of each new batch in the running mean and variance.
        epsilon: Added to the variance.
    """

    momentum: float = field(default=0.1, metadata=checked(fraction))
    epsilon: float = field(default=1e-5, metadata=checked(number(above=0)))

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Layer):
    """Normalises the last axis of each sample (Ba, Kiros and Hinton, 2016).

    Args:
        epsilon: Added to the variance.
    """

    epsilon: float = field(default=1e-5, metadata=checked(number(above=0)))

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, kw_only=True)
class Embedding(Layer):
    """A learnt vector for each token of ``(steps,)``; must be the first layer.

    Args:
        vocabulary_size: Number of tokens; inputs are whole numbers in [0, vocabulary_size).
        units: Length of each vector.
    """

    vocabulary_size: int = field(metadata=checked(whole(1)))
    units: int = field(metadata=checked(whole(1)))

    @override
    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise ValueError(f"tokens of shape (steps,), not {shape}")
        return (*shape, self.units)


@dataclass(frozen=True, kw_only=True)
class Recurrent(Layer):
    """A recurrent layer over ``(steps, features)``.

    Args:
        units: Size of the state.
        bidirectional: Whether a second pass reads the sequence backwards; doubles the output.
        output: ``'last'`` state, the whole ``'sequence'`` of states, or their ``'mean'`` or
            ``'max'`` over the steps.
        initializer: How input weights start, by default Xavier. Recurrent weights start
            orthogonal, biases at zero.
    """

    units: int = field(metadata=checked(whole(1)))
    bidirectional: bool = field(default=False, metadata=checked(boolean))
    output: str = field(
        default="last", metadata=checked(one_of(("last", "sequence", "mean", "max")))
    )
    initializer: Initializer | None = field(default=None, metadata=_INITIALIZER)

    @override
    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 2:
            raise ValueError(f"a sequence of shape (steps, features), not {shape}")
        units = self.units * (2 if self.bidirectional else 1)
        return (shape[0], units) if self.output == "sequence" else (units,)


@dataclass(frozen=True, kw_only=True)
class Rnn(Recurrent):
    """A simple recurrent layer with tanh (Elman, 1990); parameters as in `Recurrent`."""


@dataclass(frozen=True, kw_only=True)
class Lstm(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997); parameters as in `Recurrent`."""


@dataclass(frozen=True, kw_only=True)
class Gru(Recurrent):
    """Gated recurrent unit (Cho et al., 2014); parameters as in `Recurrent`."""


@dataclass(frozen=True, eq=False)
class TorchModule(Layer):
    """Any torch module as one layer: made by `from_torch`, never declared by name.

    Args:
        module: From ``(batch, *input_shape)`` float32 to ``(batch, *shape)`` logits.
        shape: Shape of one output.
        activation: Name of the activation that Lepton applies to the logits.
    """

    module: nn.Module
    shape: Shape
    activation: str

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return self.shape


LAYERS: dict[str, type[Layer]] = {
    "conv": Conv,
    "pool": Pool,
    "global_pool": GlobalPool,
    "flatten": Flatten,
    "dense": Dense,
    "dropout": Dropout,
    "activation": Activation,
    "batch_norm": BatchNorm,
    "layer_norm": LayerNorm,
    "embedding": Embedding,
    "rnn": Rnn,
    "lstm": Lstm,
    "gru": Gru,
}


def declare_layers(declarations: Sequence[object]) -> tuple[Layer, ...]:
    """The layers that a list of declarations stands for.

    Raises:
        LayerError: A layer or parameter does not exist, or a value is not allowed.

    Example:
        >>> declare_layers([("flatten"), ("dense", {"units": 3})])[0]
        Flatten()
    """
    if isinstance(declarations, str) or not declarations:
        raise LayerError(f"layers is {declarations!r}", hint="give a list of at least one layer")
    return tuple(
        declare(declaration, LAYERS, f"layer {position}", LayerError)
        for position, declaration in enumerate(declarations, start=1)
    )


def layer_name(layer: Layer) -> str:
    """The name that `layer` is declared by."""
    return next((name for name, kind in LAYERS.items() if type(layer) is kind), "torch")


def layer_shapes(input_shape: Shape, layers: Sequence[Layer]) -> list[Shape]:
    """The shape after each layer, beginning with the input's own.

    Raises:
        LayerError: Two layers cannot meet; says which layer, what it got and what it needs.

    Example:
        >>> layer_shapes((28, 28, 1), declare_layers([("pool"), ("flatten")]))
        [(28, 28, 1), (14, 14, 1), (196,)]
    """
    shapes = [input_shape]
    for position, layer in enumerate(layers, start=1):
        if isinstance(layer, Embedding) and position > 1:
            raise LayerError(f"layer {position} ('embedding') is not the first layer")
        try:
            shapes.append(layer.output_shape(shapes[-1]))
        except ValueError as need:
            raise LayerError(
                f"layer {position} ({layer_name(layer)!r}) got an input of shape {shapes[-1]}",
                hint=f"it needs {need}",
            ) from None
    return shapes


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError("an image of shape (height, width, channels)")
    return shape


def _windows(sides: Pair, window: Pair, strides: Pair) -> Pair:
    if sides[0] < window[0] or sides[1] < window[1]:
        raise ValueError(f"an image of at least {window[0]} x {window[1]} pixels")
    rows, columns = (
        (side - size) // step + 1 for side, size, step in zip(sides, window, strides, strict=True)
    )
    return rows, columns
