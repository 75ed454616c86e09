"""The core of training, apart from where batches come from and who averages gradients.

A step is three calls, so that a distributed trainer can reduce gradients in between::

    trainer.backward(inputs, targets)  # forward, loss, gradients in module.parameters()
    ...                                # all-reduce, or nothing
    trainer.step()                     # learning rate of this step, weights move
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn, optim

from lepton_ai.errors import ConflictError
from lepton_ai.learn.config import ModelConfig, Objective
from lepton_ai.learn.metrics import METRICS
from lepton_ai.learn.network import Network

__all__ = [
    "Measured",
    "Meter",
    "Trainer",
    "forward_loss",
    "load_weights",
    "objective_of",
    "optimizer_index",
    "training_device",
]

_BATCHES_AT_ONCE = 64
_LOSS = "loss"
# No module's name begins like this.
_OPTIMIZER, _METER = "~optimizer.", "~meter."


def training_device() -> torch.device:
    """The accelerator to train on if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Measured(NamedTuple):
    """A batch's mean loss, the outputs that the loss saw, and the targets."""

    loss: Tensor
    outputs: Tensor
    targets: Tensor


class Trainer:
    """A module on its way from random to trained weights.

    Args:
        config: A compiled model.
        module: Its network, already on the device it is trained on.
        total_steps: Steps of the whole run, which the learning-rate schedule spans.
        parameters: What the optimizer moves; the module's own when not given.

    Attributes:
        module: The network.
        parameters: What the optimizer moves; gradients lie there between `backward` and `step`.
        optimizer: The torch optimizer; a distributed trainer may put a wrapper in its place.
        steps_done: Steps taken so far; set it when weights come from a peer or a checkpoint.
        measured: What `backward` found, for the meter once the step is taken; a distributed
            trainer puts what the whole batch gave in the place of its share.
        meter: Loss and metrics of the steps since they were last read.
    """

    def __init__(
        self,
        config: ModelConfig,
        module: Network,
        *,
        total_steps: int,
        parameters: Sequence[nn.Parameter] = (),
    ) -> None:
        objective = objective_of(config)
        self.module = module
        self.parameters = list(parameters or module.parameters())
        self.optimizer: optim.Optimizer = objective.optimizer.build(self.parameters)
        self.meter = Meter(config)
        self.measured: Measured | None = None
        self.steps_done = 0
        self.total_steps = total_steps
        self._objective = objective
        self._device = next(module.parameters()).device
        self._class_weight = _class_weight(objective, self._device)

    def backward(self, inputs: Tensor, targets: Tensor, weight: float = 1.0) -> None:
        """Compute the batch's mean loss and its gradients; weights stay as they are.

        Args:
            inputs: ``(batch, *input_shape)`` on the module's device.
            targets: ``(batch, ...)`` as the loss takes them, on the same device.
            weight: What the gradients are multiplied by.
        """
        self.optimizer.zero_grad(set_to_none=True)
        outputs, loss = forward_loss(
            self.module, self._objective, inputs, targets, self._class_weight
        )
        loss.backward(loss.new_full((), weight))
        self.measured = Measured(loss.detach(), outputs.detach(), targets)

    def step(self) -> None:
        """Move the weights along the gradients, at the learning rate of this step."""
        if self.measured is not None:
            # Only now: a batch may be computed more than once before its step is taken.
            self.meter.add(*self.measured)
            self.measured = None
        rate = self.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.steps_done += 1

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        factor = self._objective.schedule.factor(self.steps_done, self.total_steps)
        return self._objective.optimizer.learning_rate * factor

    def weights(self) -> dict[str, Tensor]:
        """The module's state."""
        return dict(self.module.state_dict())

    def state(self) -> dict[str, Tensor]:
        """The module's state, the optimizer's and the meter's: flat, for safetensors."""
        tensors = self.weights()
        for index, entries in self.optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                tensors[f"{_OPTIMIZER}{index}.{name}"] = torch.as_tensor(value)
        tensors |= {f"{_METER}{name}": value for name, value in self.meter.state().items()}
        return {name: value.contiguous() for name, value in tensors.items()}

    def whole(self, held: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """All of what `weights` or `state` returned, where trainers hold parts of a module."""
        return held

    def part(self, whole: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What `state` returns here where trainers hold parts of what is `whole`."""
        return whole

    def load_state(self, tensors: Mapping[str, Tensor], steps_done: int) -> None:
        """Continue from what `state` returned after `steps_done` steps.

        Raises:
            ConflictError: The tensors belong to a different model or optimizer.
        """
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if (index := optimizer_index(name)) is not None:
                entry = name.removeprefix(f"{_OPTIMIZER}{index}.")
                state.setdefault(index, {})[entry] = value.clone()
        try:
            load_weights(self.module, tensors)
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        except ValueError as mismatch:
            raise ConflictError(f"the saved state belongs to another run: {mismatch}") from None
        self.meter.load_state(
            {
                name.removeprefix(_METER): value
                for name, value in tensors.items()
                if name.startswith(_METER)
            }
        )
        self.steps_done = steps_done


def optimizer_index(name: str) -> int | None:
    """The index of the parameter to which a tensor of the optimizer's state belongs.

    Args:
        name: A name in what `Trainer.state` returns; the answer is None for all other tensors.

    Example:
        >>> optimizer_index("~optimizer.3.exp_avg"), optimizer_index("layers.dense_1.weight")
        (3, None)
    """
    if not name.startswith(_OPTIMIZER):
        return None
    return int(name.removeprefix(_OPTIMIZER).partition(".")[0])


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put weights into `module`, leaving out what else of a trainer's state came with them.

    Raises:
        ConflictError: The weights belong to a different model.
    """
    weights = {
        name: value for name, value in tensors.items() if not name.startswith((_OPTIMIZER, _METER))
    }
    try:
        module.load_state_dict(weights)
    except RuntimeError:
        expected, found = set(module.state_dict()), set(weights)
        raise ConflictError(
            "the weights belong to a different model",
            hint=f"missing {sorted(expected - found)}, unexpected {sorted(found - expected)}",
        ) from None


class Meter:
    """Loss and metrics over batches, without waiting for the device after each.

    Args:
        config: A compiled model.
    """

    def __init__(self, config: ModelConfig) -> None:
        objective = objective_of(config)
        self._loss = objective.loss
        self._metrics = {
            next(name for name, kind in METRICS.items() if type(metric) is kind): metric.build(
                objective.loss, config.output_shape
            )
            for metric in objective.metrics
        }
        self._loss_sum, self._samples = 0.0, 0
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Take in a batch: its mean loss, the outputs the loss saw, and the targets."""
        self._pending.append((loss, outputs, targets))
        if len(self._pending) == _BATCHES_AT_ONCE:
            self._flush()

    def results(self) -> dict[str, float]:
        """Loss and metrics of all samples since the last call, which starts them afresh."""
        if self._pending:
            self._flush()
        results = {"loss": self._loss_sum / max(1, self._samples)}
        for name, metric in self._metrics.items():
            with warnings.catch_warnings():
                # It may have nothing but what came from other meters.
                warnings.filterwarnings("ignore", ".* was called before the ``update`` method")
                results[name] = float(metric.compute())
            metric.reset()
        self._loss_sum, self._samples = 0.0, 0
        return results

    def state(self) -> dict[str, Tensor]:
        """All it has taken in since results were read, for a meter that goes on from there."""
        if self._pending:
            self._flush()
        tensors = {_LOSS: torch.tensor([self._loss_sum, self._samples], dtype=torch.float64)}
        for name, metric in self._metrics.items():
            for part, value in metric.metric_state.items():
                if isinstance(value, Tensor):
                    tensors[f"{name}.{part}"] = value.clone()
                elif value:
                    tensors[f"{name}.{part}"] = torch.cat(value)
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what another meter's `state` returned."""
        self._pending.clear()
        loss_sum, samples = tensors[_LOSS].tolist()
        self._loss_sum, self._samples = loss_sum, int(samples)
        for name, metric in self._metrics.items():
            for part, value in metric.metric_state.items():
                found = tensors.get(f"{name}.{part}")
                if isinstance(value, Tensor):
                    setattr(metric, part, value if found is None else found.clone())
                else:
                    setattr(metric, part, [] if found is None else [found])

    def merge(self, tensors: Mapping[str, Tensor]) -> None:
        """Take in what another meter's `state` returned, beside what was taken in here."""
        loss_sum, samples = tensors[_LOSS].tolist()
        self._loss_sum, self._samples = self._loss_sum + loss_sum, self._samples + int(samples)
        for name, metric in self._metrics.items():
            parts: dict[str, Tensor | list[Tensor]] = {}
            for part, value in metric.metric_state.items():
                found = tensors[f"{name}.{part}"]
                parts[part] = found if isinstance(value, Tensor) else [found]
            metric.merge_state(parts)

    def _flush(self) -> None:
        losses, outputs, targets = zip(*self._pending, strict=True)
        self._pending.clear()
        sizes = torch.tensor([len(batch) for batch in targets], dtype=torch.float64)
        self._loss_sum += float(torch.stack(losses).double().cpu() @ sizes)
        self._samples += int(sizes.sum())
        if self._metrics:
            self._update(torch.cat(outputs).float(), torch.cat(targets))

    def _update(self, outputs: Tensor, targets: Tensor) -> None:
        if self._loss.activation == "softmax":
            outputs = outputs.softmax(dim=-1)
            targets = targets.argmax(dim=-1) if targets.ndim == outputs.ndim else targets
        elif self._loss.activation == "sigmoid":
            outputs, targets = outputs.sigmoid(), targets.int()
        if outputs.ndim == 2 and outputs.shape[1] == 1:
            outputs, targets = outputs[:, 0], targets.reshape(-1)
        for metric in self._metrics.values():
            metric.to(outputs.device).update(outputs, targets)


def forward_loss(
    module: Network,
    objective: Objective,
    inputs: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs (logits, for a loss taken on logits) and the batch's mean loss, a scalar.

    On an accelerator the layers run in bfloat16 and the loss in float32.
    """
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.is_cuda):
        outputs = module(inputs) if objective.loss.activation is None else module.logits(inputs)
    outputs = outputs.float()
    return outputs, objective.loss.value(outputs, targets, class_weight)


def objective_of(config: ModelConfig) -> Objective:
    """The objective of a compiled model.

    Raises:
        ConflictError: The model is not compiled.
    """
    if config.objective is None:
        raise ConflictError("the model is not compiled", hint="call compile first")
    return config.objective


def _class_weight(objective: Objective, device: torch.device) -> Tensor | None:
    if objective.class_weight is None:
        return None
    return torch.tensor(objective.class_weight, device=device)
