"""From a config to a plain `torch.nn.Module`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lepton_ai.learn.activations import POOLED_FIRST, build_activation
from lepton_ai.learn.config import ModelConfig, activation_of
from lepton_ai.learn.initializers import Initializer, XavierUniform, default_initializer
from lepton_ai.learn.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalPool,
    Gru,
    Layer,
    LayerNorm,
    Lstm,
    Pool,
    Recurrent,
    Rnn,
    Shape,
    TorchModule,
    layer_name,
)
from lepton_ai.preprocessing.steps import Augmentation, Scaler

__all__ = ["Network", "build_module"]


class Network(nn.Module):
    """A model's layers, with the last activation apart so that losses can work on logits.

    Args:
        preprocess: From raw input, ``(batch, *input_shape)`` of float32, uint8 or (tokens) int64,
            to what the first layer takes.
        layers: Everything up to the last activation.
        activation: The last activation.
    """

    def __init__(self, preprocess: nn.Module, layers: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.layers = layers
        self.activation = activation

    def logits(self, x: Tensor) -> Tensor:
        """What the last activation is applied to, ``(batch, *output_shape)``."""
        return self.layers(self.preprocess(x))

    def forward(self, x: Tensor) -> Tensor:
        """The model's outputs, ``(batch, *output_shape)``."""
        return self.activation(self.logits(x))


def build_module(config: ModelConfig, seed: int) -> Network:
    """The network that `config` declares, its weights drawn from `seed`.

    Weights are the same on every machine for the same config and seed. torch's global random
    state is left as it was.

    Example:
        >>> from lepton_ai.learn.config import declare_model
        >>> build_module(declare_model("Sequential", (2,), [("dense", {"units": 1})]), seed=0)(
        ...     torch.zeros(3, 2)
        ... ).shape
        torch.Size([3, 1])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(OrderedDict(_modules(config)))
    activation = build_activation(config.output_activation)
    network = Network(_preprocess(config), layers, activation)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _preprocess(config: ModelConfig) -> nn.Module:
    if config.takes_tokens:
        return nn.Identity()
    steps: list[nn.Module] = []
    scaled = False
    for step in config.preprocessing:
        if isinstance(step, Scaler):
            steps.append(_Scale(step, config.input_shape[-1]))
            scaled = True
    if not scaled:
        steps.append(_ToFloat())
    if len(config.input_shape) == 3 and not isinstance(config.layers[0], TorchModule):
        steps.append(_ChannelsFirst())
    steps.extend(
        _WhileTraining(step.build(config.input_shape[:2]))
        for step in config.preprocessing
        if isinstance(step, Augmentation)
    )
    return nn.Sequential(*steps)


def _modules(config: ModelConfig) -> Iterator[tuple[str, nn.Module]]:
    """Named modules in the order they run: max pooling before the activation it commutes with."""
    waiting: tuple[str, nn.Module] | None = None
    last = len(config.layers)
    for position, (layer, shape) in enumerate(zip(config.layers, config.shapes, strict=False), 1):
        name = f"{layer_name(layer)}_{position}"
        if not isinstance(layer, Activation):
            yield name, _build(layer, shape)
        if waiting:
            yield waiting
            waiting = None
        activation = activation_of(layer)
        if activation == "linear" or position == last:
            continue
        function = (f"{name}_{activation}", _channelwise(build_activation(activation), shape))
        following = config.layers[position]
        if activation in POOLED_FIRST and isinstance(following, Pool) and following.mode == "max":
            waiting = function
        else:
            yield function


def _build(layer: Layer, shape: Shape) -> nn.Module:
    return next(build for kind, build in _BUILDERS.items() if isinstance(layer, kind))(layer, shape)


def _conv(layer: Conv, shape: Shape) -> nn.Module:
    conv = nn.Conv2d(shape[-1], layer.filters, layer.kernel_size, layer.strides)
    _start(conv.weight, conv.bias, layer.initializer, layer.activation)
    if layer.padding == "valid":
        return conv
    return nn.Sequential(OrderedDict(pad=nn.ZeroPad2d(_same_padding(layer, shape)), conv=conv))


def _same_padding(layer: Conv, shape: Shape) -> tuple[int, int, int, int]:
    """Left, right, top, bottom for ceil(side / stride) windows; an odd pixel goes last."""
    pads: list[int] = []
    for side, size, step in zip(shape, layer.kernel_size, layer.strides, strict=False):
        total = max(0, (-(-side // step) - 1) * step + size - side)
        pads = [total // 2, total - total // 2, *pads]
    left, right, top, bottom = pads
    return left, right, top, bottom


def _pool(layer: Pool, shape: Shape) -> nn.Module:
    kind = nn.MaxPool2d if layer.mode == "max" else nn.AvgPool2d
    return kind(layer.pool_size, layer.strides)


def _global_pool(layer: GlobalPool, shape: Shape) -> nn.Module:
    return _GlobalPool(layer.mode, dims=(1,) if len(shape) == 2 else (2, 3))


def _flatten(layer: Flatten, shape: Shape) -> nn.Module:
    return _Flatten()


def _dropout(layer: Dropout, shape: Shape) -> nn.Module:
    return nn.Dropout(layer.rate)


def _dense(layer: Dense, shape: Shape) -> nn.Module:
    dense = nn.Linear(shape[-1], layer.units)
    _start(dense.weight, dense.bias, layer.initializer, layer.activation)
    return dense


def _batch_norm(layer: BatchNorm, shape: Shape) -> nn.Module:
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    norm = kind(shape[-1], eps=layer.epsilon, momentum=layer.momentum)
    return _FeaturesFirst(norm) if len(shape) == 2 else norm


def _layer_norm(layer: LayerNorm, shape: Shape) -> nn.Module:
    return _channelwise(nn.LayerNorm(shape[-1], eps=layer.epsilon), shape)


def _embedding(layer: Embedding, shape: Shape) -> nn.Module:
    return nn.Embedding(layer.vocabulary_size, layer.units)


def _recurrent(layer: Recurrent, shape: Shape) -> nn.Module:
    kinds: dict[type[Recurrent], type[nn.RNN | nn.LSTM | nn.GRU]]
    kinds = {Rnn: nn.RNN, Lstm: nn.LSTM, Gru: nn.GRU}
    recurrent = kinds[type(layer)](
        shape[-1], layer.units, batch_first=True, bidirectional=layer.bidirectional
    )
    for name, weight in recurrent.named_parameters():
        if name.startswith("weight_ih"):
            for gate in weight.data.split(layer.units):
                (layer.initializer or XavierUniform()).fill(gate)
        elif name.startswith("weight_hh"):
            for gate in weight.data.split(layer.units):
                nn.init.orthogonal_(gate)
        else:
            nn.init.zeros_(weight)
    return _States(recurrent, layer.output)


def _torch_module(layer: TorchModule, shape: Shape) -> nn.Module:
    return layer.module


_BUILDERS: dict[type[Layer], Callable[..., nn.Module]] = {
    Conv: _conv,
    Pool: _pool,
    GlobalPool: _global_pool,
    Flatten: _flatten,
    Dense: _dense,
    Dropout: _dropout,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    Embedding: _embedding,
    Recurrent: _recurrent,
    TorchModule: _torch_module,
}


def _start(
    weight: Tensor, bias: Tensor | None, initializer: Initializer | None, activation: str
) -> None:
    (initializer or default_initializer(activation)).fill(weight)
    if bias is not None:
        nn.init.zeros_(bias)


def _channelwise(module: nn.Module, shape: Shape) -> nn.Module:
    """`module` along the channels, which are the last axis except inside images."""
    along_last = isinstance(module, nn.LayerNorm | nn.Softmax)
    return _ChannelsLast(module) if along_last and len(shape) == 3 else module


class _Scale(nn.Module):
    shift: Tensor
    scale: Tensor

    def __init__(self, scaler: Scaler, features: int) -> None:
        super().__init__()
        # Placeholders until the scaler is fitted keep the module's shape the same before and after.
        shift = torch.tensor(scaler.shift or [0.0] * features, dtype=torch.float32)
        scale = torch.tensor(scaler.scale or [1.0] * features, dtype=torch.float32)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.base = scaler.base

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) * self.scale + self.base


class _ToFloat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class _ChannelsFirst(nn.Module):
    """Images as torch wants them: a view, which leaves channels last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class _ChannelsLast(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _FeaturesFirst(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class _Flatten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).flatten(1)


class _GlobalPool(nn.Module):
    def __init__(self, mode: str, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.mode = mode
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dims) if self.mode == "average" else x.amax(self.dims)


class _WhileTraining(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if self.training else x


class _States(nn.Module):
    """A recurrent module's states, reduced over the steps as the layer's `output` says."""

    def __init__(self, recurrent: nn.RNNBase, output: str) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        states, final = self.recurrent(x)
        if self.output == "sequence":
            return states
        if self.output == "mean":
            return states.mean(dim=1)
        if self.output == "max":
            return states.amax(dim=1)
        final = final[0] if isinstance(final, tuple) else final
        return torch.cat([*final], dim=-1)
