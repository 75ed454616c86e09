"""Training, evaluation and prediction on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.learn.batches import BatchPlan, epoch_seed
from lepton_ai.learn.callbacks import Callback, Run
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.files import ModelFile, read_model
from lepton_ai.learn.history import History
from lepton_ai.learn.network import Network
from lepton_ai.learn.progress import announce, epoch_progress
from lepton_ai.learn.trainer import Meter, Trainer, forward_loss, objective_of
from lepton_ai.malloc import keep_freed_memory

__all__ = ["Samples", "begin", "evaluate", "fit", "predict", "read_checkpoint", "resume"]

Array = NDArray[Any]

_DEVICE_SHARE = 4
"""Data moves to the accelerator whole if it takes at most this fraction of its free memory."""


@dataclass(frozen=True)
class Samples:
    """Inputs and targets, first axis the samples; uint8 stays uint8 until it is on the device."""

    inputs: Tensor
    targets: Tensor
    device: torch.device

    @classmethod
    def of(cls, inputs: Array, targets: Array, device: torch.device) -> Samples:
        """Samples from arrays, on the device at once where they fit."""
        tensors = torch.from_numpy(inputs), torch.from_numpy(targets)
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            if sum(tensor.nbytes for tensor in tensors) * _DEVICE_SHARE <= free_bytes:
                tensors = tensors[0].to(device), tensors[1].to(device)
        return cls(*tensors, device)

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The samples at `indices`, on the device."""
        inputs = self.inputs.index_select(0, indices.to(self.inputs.device))
        return inputs.to(self.device), self.targets_of(indices)

    def targets_of(self, indices: Tensor) -> Tensor:
        """The targets at `indices`, on the device."""
        return self.targets[indices.to(self.targets.device)].to(self.device)


def begin(config: ModelConfig, module: Network, plan: BatchPlan, epochs: int) -> Run:
    """A run of `epochs` that has not taken a step."""
    trainer = Trainer(config, module, total_steps=epochs * plan.steps_per_epoch)
    return Run(config, trainer, History(plan.seed), epochs)


def read_checkpoint(path: str | Path) -> ModelFile:
    """Read what a `Checkpoint` wrote.

    Raises:
        NotFoundError: There is no such file.
        InvalidArgumentError: The file is a model, not a checkpoint.
    """
    file = read_model(path)
    if "run" not in file.header:
        raise InvalidArgumentError(
            f"{path} is no checkpoint", hint="the Checkpoint callback writes one"
        )
    return file


def resume(run: Run, checkpoint: ModelFile) -> None:
    """Put `run` where `checkpoint` left it.

    Raises:
        ConflictError: It belongs to a different model.
    """
    run.trainer.load_state(checkpoint.tensors, checkpoint.header["run"]["steps_done"])
    run.history = History.from_dict(checkpoint.header["history"])


def fit(
    run: Run,
    plan: BatchPlan,
    training: Samples,
    validation: Samples | None,
    callbacks: Sequence[Callback],
) -> None:
    """Train ``run.trainer`` until ``run.epochs`` are in its history or a callback stops it.

    The random state of dropout and augmentation comes from seed and epoch, so that a resumed run
    equals one that was never interrupted. torch's global random state is left as it was.
    """
    keep_freed_memory()
    for callback in callbacks:
        callback.on_fit_begin(run)
    with torch.random.fork_rng(devices=[training.device] if training.device.type == "cuda" else []):
        while len(run.history) < run.epochs and not run.stopped:
            results = _train_epoch(run, plan, training)
            if validation is not None:
                measured = evaluate(run.config, run.trainer.module, validation, plan.batch_size)
                results |= {f"val_{name}": value for name, value in measured.items()}
            run.history.epochs.append(results)
            announce(len(run.history), run.epochs, results)
            for callback in callbacks:
                callback.on_epoch_end(run)
    for callback in callbacks:
        callback.on_fit_end(run)


def _train_epoch(run: Run, plan: BatchPlan, training: Samples) -> dict[str, float]:
    epoch = len(run.history)
    trainer, steps = run.trainer, plan.steps_per_epoch
    torch.manual_seed(epoch_seed(plan.seed, epoch))
    trainer.module.train()
    with epoch_progress(epoch, run.epochs, steps) as advance:
        for step in range(epoch * steps, (epoch + 1) * steps):
            trainer.backward(*training.take(torch.from_numpy(plan.indices(step))))
            trainer.step()
            if advance:
                advance()
    return trainer.meter.results()


def evaluate(
    config: ModelConfig, module: Network, samples: Samples, batch_size: int
) -> dict[str, float]:
    """Loss, without class weights, and metrics over all samples."""
    meter, objective = Meter(config), objective_of(config)
    with torch.inference_mode():
        module.eval()
        for batch in _slices(len(samples), batch_size):
            inputs = samples.inputs[batch].to(samples.device)
            targets = samples.targets[batch].to(samples.device)
            outputs, loss = forward_loss(module, objective, inputs, targets, None)
            meter.add(loss, outputs, targets)
        return meter.results()


def predict(module: Network, inputs: Array, device: torch.device, batch_size: int) -> Array:
    """The module's outputs, ``(samples, *output_shape)`` float32."""
    with torch.inference_mode():
        module.eval()
        outputs = [
            module(torch.from_numpy(inputs[batch]).to(device)).float().cpu()
            for batch in _slices(len(inputs), batch_size)
        ]
        return torch.cat(outputs).numpy()


def _slices(samples: int, batch_size: int) -> Iterator[slice]:
    return (slice(start, start + batch_size) for start in range(0, samples, batch_size))
