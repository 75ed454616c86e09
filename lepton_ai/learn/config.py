"""A model as data: what travels in JSON, is checked without torch, and can be built anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from lepton_ai.errors import InvalidArgumentError, LayerError
from lepton_ai.learn.declaration import declare, nearest, undeclare
from lepton_ai.learn.layers import (
    LAYERS,
    Activation,
    Conv,
    Dense,
    Embedding,
    Layer,
    Shape,
    TorchModule,
    declare_layers,
    layer_shapes,
)
from lepton_ai.learn.losses import LOSSES, Loss
from lepton_ai.learn.metrics import METRICS, Metric
from lepton_ai.learn.optimizers import OPTIMIZERS, Optimizer
from lepton_ai.learn.schedules import SCHEDULES, Schedule
from lepton_ai.preprocessing.steps import STEPS, PreprocessingStep, Tokenizer

__all__ = ["FORMAT", "ModelConfig", "Objective", "declare_model", "declare_objective"]

FORMAT = 1
"""Version of the JSON form. A reader refuses a higher one."""

_INPUTS: dict[str, tuple[tuple[int, ...], str]] = {
    "CNN": ((3,), "(height, width, channels)"),
    "RNN": ((1, 2), "(steps,) of tokens or (steps, features)"),
    "Sequential": ((1, 2, 3), "one to three axes"),
}


@dataclass(frozen=True)
class Objective:
    """What `compile` settles: how the model is trained and measured."""

    optimizer: Optimizer
    loss: Loss
    metrics: tuple[Metric, ...]
    schedule: Schedule
    class_weight: tuple[float, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """A form fit for JSON."""
        return {
            "optimizer": undeclare(self.optimizer, OPTIMIZERS),
            "loss": undeclare(self.loss, LOSSES),
            "metrics": [undeclare(metric, METRICS) for metric in self.metrics],
            "schedule": undeclare(self.schedule, SCHEDULES),
            "class_weight": None if self.class_weight is None else list(self.class_weight),
        }


@dataclass(frozen=True)
class ModelConfig:
    """A checked declaration of a model: if one exists, its layers meet.

    Args:
        kind: ``'CNN'``, ``'RNN'`` or ``'Sequential'``.
        input_shape: Shape of one sample after preprocessing, channels or features last.
        layers: The layers in order.
        preprocessing: Steps between raw input and the first layer.
        objective: What `compile` settled, or None before.
    """

    kind: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    preprocessing: tuple[PreprocessingStep, ...] = ()
    objective: Objective | None = None

    @property
    def shapes(self) -> list[Shape]:
        """The shape of one sample before the first layer and after each."""
        return layer_shapes(self.input_shape, self.layers)

    @property
    def output_shape(self) -> Shape:
        """The shape of one output."""
        return self.shapes[-1]

    @property
    def output_activation(self) -> str:
        """The name of the last layer's activation."""
        return activation_of(self.layers[-1])

    @property
    def takes_tokens(self) -> bool:
        """Whether the first layer reads whole numbers rather than float32."""
        return isinstance(self.layers[0], Embedding)

    def with_objective(self, objective: Objective) -> ModelConfig:
        """The same model, compiled."""
        return replace(self, objective=objective)

    def to_dict(self) -> dict[str, Any]:
        """A form fit for JSON, from which `from_dict` makes an equal config.

        Raises:
            InvalidArgumentError: The model is a torch module, which cannot be declared.
        """
        if isinstance(self.layers[0], TorchModule):
            raise InvalidArgumentError(
                "a model made by from_torch has no layer list",
                hint="save_weights and export_onnx write what it has",
            )
        return {
            "format": FORMAT,
            "kind": self.kind,
            "input_shape": list(self.input_shape),
            "layers": [undeclare(layer, LAYERS) for layer in self.layers],
            "preprocessing": [undeclare(step, STEPS) for step in self.preprocessing],
            "objective": None if self.objective is None else self.objective.to_dict(),
        }

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> ModelConfig:
        """The config that `to_dict` wrote; everything in it is checked again.

        Raises:
            InvalidArgumentError: The form is not one of ours, or newer than this build.
            LayerError: The layers cannot become a model.
        """
        _check_form(form)
        config = declare_model(
            form["kind"], form["input_shape"], form["layers"], form.get("preprocessing", ())
        )
        objective = form.get("objective")
        if objective is None:
            return config
        return config.with_objective(declare_objective(config, **objective))


def declare_model(
    kind: str, input_shape: object, layers: Sequence[object], preprocessing: Sequence[object] = ()
) -> ModelConfig:
    """A checked `ModelConfig` from declarations, not yet compiled.

    Raises:
        LayerError: The layers cannot become a model.
        InvalidArgumentError: The preprocessing does not exist or does not fit.
    """
    shape = _input_shape(kind, input_shape)
    config = ModelConfig(kind, shape, declare_layers(layers), _steps(preprocessing))
    layer_shapes(shape, config.layers)
    for step in config.preprocessing:
        if isinstance(step, Tokenizer) and not (
            config.takes_tokens and shape == (step.steps,) and step is config.preprocessing[0]
        ):
            raise LayerError(
                f"a tokenizer of {step.steps} steps came before input_shape {shape}",
                hint=f"it needs input_shape ({step.steps},) and a first layer 'embedding'",
            )
    return config


def declare_objective(
    config: ModelConfig,
    *,
    optimizer: object = "adam",
    loss: object = "mse",
    metrics: Sequence[object] = (),
    schedule: object = "cosine",
    class_weight: Mapping[int, float] | Sequence[float] | None = None,
) -> Objective:
    """A checked `Objective` for `config`.

    Raises:
        InvalidArgumentError: A name or parameter does not exist; names the nearest.
        LayerError: The model's end does not fit the loss or a metric.
    """
    if isinstance(metrics, str):
        raise InvalidArgumentError(f"metrics is {metrics!r}", hint=f"give a list: [{metrics!r}]")
    objective = Objective(
        declare(optimizer, OPTIMIZERS, "optimizer", InvalidArgumentError),
        declare(loss, LOSSES, "loss", InvalidArgumentError),
        tuple(declare(metric, METRICS, "metric", InvalidArgumentError) for metric in metrics),
        declare(schedule, SCHEDULES, "schedule", InvalidArgumentError),
        None,
    )
    name = undeclare(objective.loss, LOSSES)[0]
    objective.loss.check_model(name, config.output_shape, config.output_activation)
    for metric in objective.metrics:
        metric.check_loss(undeclare(metric, METRICS)[0], objective.loss)
    weights = _class_weight(class_weight, objective.loss, config.output_shape)
    return replace(objective, class_weight=weights)


def activation_of(layer: Layer) -> str:
    """The name of the activation that `layer` ends with."""
    if isinstance(layer, Activation):
        return layer.function
    return layer.activation if isinstance(layer, Conv | Dense | TorchModule) else "linear"


def _steps(preprocessing: Sequence[object]) -> tuple[PreprocessingStep, ...]:
    return tuple(
        declare(step, STEPS, f"preprocessing step {position}", InvalidArgumentError)
        for position, step in enumerate(preprocessing, start=1)
    )


def _input_shape(kind: str, given: object) -> Shape:
    if kind not in _INPUTS:
        raise InvalidArgumentError(
            f"model kind {kind!r} does not exist", hint=nearest(kind, _INPUTS)
        )
    sides = cast("Sequence[object]", given)
    if not isinstance(given, list | tuple) or not all(
        isinstance(side, int) and side > 0 for side in sides
    ):
        raise LayerError(
            f"input_shape is {given!r}",
            hint="it must be a tuple of positive whole numbers, such as (28, 28, 1)",
        )
    shape = cast("Shape", tuple(sides))
    if kind == "CNN" and len(shape) == 2:
        shape = (*shape, 1)
    ranks, needs = _INPUTS[kind]
    if len(shape) not in ranks:
        raise LayerError(f"{kind} got input_shape {shape}", hint=f"it needs {needs}")
    return shape


def _class_weight(
    given: Mapping[int, float] | Sequence[float] | None, loss: Loss, output_shape: Shape
) -> tuple[float, ...] | None:
    if given is None:
        return None
    if loss.activation is None:
        raise InvalidArgumentError("class_weight needs a classification loss")
    classes = output_shape[-1] if loss.activation == "softmax" else 2
    weights = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    if not set(weights) <= set(range(classes)) or any(weight < 0 for weight in weights.values()):
        raise InvalidArgumentError(
            f"class_weight is {given!r}",
            hint=f"give non-negative weights for classes 0 to {classes - 1}",
        )
    return tuple(float(weights.get(index, 1.0)) for index in range(classes))


def _check_form(form: Mapping[str, Any]) -> None:
    for key in ("format", "kind", "input_shape", "layers"):
        if key not in form:
            raise InvalidArgumentError(f"a model's config lacks {key!r}")
    if form["format"] != FORMAT:
        raise InvalidArgumentError(
            f"a model's config has format {form['format']!r}", hint=f"this build reads {FORMAT}"
        )
