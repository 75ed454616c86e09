"""The training loop of one rank, under torchft: ranks may come and go at every step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lepton_ai.learn.batches import Indices, epoch_seed
from lepton_ai.learn.files import ModelFile, read_model, write_model
from lepton_ai.learn.fitting import Samples, evaluate, read_checkpoint
from lepton_ai.learn.history import History
from lepton_ai.learn.model import restore
from lepton_ai.learn.network import build_module
from lepton_ai.learn.trainer import Measured, load_weights
from lepton_worker.checkpoints import Checkpoints
from lepton_worker.chunked import ChunkedFile
from lepton_worker.fellows import Fellows
from lepton_worker.quorum import Part, Quorum
from lepton_worker.training_data import open_data
from lepton_worker.work import RankWork

__all__ = ["Rank"]

Report = Callable[[dict[str, Any]], None]

_REPORT_S = 0.5
# How long who replaces another waits for those who are further, before it goes on alone.
_OTHERS_S = 2.0
# Batch normalisation needs two.
_LEAST_ROWS = 2


class Rank:
    """One rank: its share of every batch, and weights that all ranks agree on after each step.

    Invariant: the batch of a step, and so the result, depends on the seed and the step alone,
    not on how many ranks share it.
    """

    def __init__(
        self,
        work: RankWork,
        fellows: Fellows,
        checkpoints: Checkpoints,
        file: ChunkedFile | None,
    ) -> None:
        self._work = work
        self._fellows = fellows
        self._checkpoints = checkpoints
        opened = open_data(work, file)
        self.config, self._plan = opened.config, opened.plan
        self._samples, self._validation = opened.samples, opened.validation
        network = build_module(self.config, work.seed)
        if work.weights:
            load_weights(network, read_model(work.weights).tensors)
        self._total_steps = work.epochs * self._plan.steps_per_epoch
        self._trainer = fellows.trainer(self.config, network, self._total_steps)
        self._history = History(work.seed)
        if work.checkpoint:
            self._resume(read_checkpoint(work.checkpoint))
        # Those who lost the lighthouse as well are about to find the new one.
        self._awaits_others_until = time.monotonic() + work.replaces * _OTHERS_S
        self._quorum = Quorum(work, fellows, self._trainer.steps_done, self._state, self._load)

    def train(self, report: Report) -> None:
        """Take every step that is left."""
        began, reported, samples, ranks = time.monotonic(), 0.0, 0, 0
        while self._trainer.steps_done < self._total_steps:
            taken = self._step()
            if not taken:
                continue  # a rank that joins does not know yet how far the others are
            samples += taken
            now = time.monotonic()
            resized = self._quorum.expected.ranks != ranks
            done = self._trainer.steps_done == self._total_steps
            if resized or done or now - reported > _REPORT_S:
                report(self._progress(samples / (now - began)))
                reported, ranks = now, self._quorum.expected.ranks
        self._quorum.end()

    def move_lighthouse(self, address: str) -> None:
        """Use another lighthouse when the present one fails."""
        self._quorum.move_lighthouse(address)

    def write(self, folder: Path, onnx: bool) -> dict[str, Any]:
        """Write the model, and as ONNX if wanted; says where."""
        file = ModelFile(self._header(), self._trainer.whole(self._trainer.weights()))
        if self._fellows.index:
            return {}
        folder.mkdir(parents=True, exist_ok=True)
        weights, exported = folder / "model.safetensors", folder / "model.onnx"
        write_model(weights, file)
        if onnx:
            restore(file).export_onnx(exported)
        return {
            "weights": str(weights),
            "onnx": str(exported) if onnx else "",
            "config": json.dumps(self.config.to_dict()),
            "history": json.dumps(self._history.to_dict()),
            "metrics": self._history.epochs[-1] if self._history.epochs else {},
        }

    def _header(self) -> dict[str, Any]:
        return {
            "model": self.config.to_dict(),
            "history": self._history.to_dict(),
            "run": {"steps_done": self._trainer.steps_done, "epochs": self._work.epochs},
        }

    def _resume(self, checkpoint: ModelFile) -> None:
        held = self._trainer.part(checkpoint.tensors)
        self._trainer.load_state(held, checkpoint.header["run"]["steps_done"])
        self._history = History.from_dict(checkpoint.header["history"])

    def _step(self) -> int:
        """Take one step with whoever is there; returns the samples it took in, of all ranks."""
        quorum, trainer = self._quorum, self._trainer
        quorum.begin_step()
        part = quorum.expected
        self._compute(part)  # while the ranks agree, which seldom changes anything
        settled = quorum.settled()
        if settled.alone and self._fellows.first(time.monotonic() < self._awaits_others_until):
            return 0
        if settled != part:
            self._compute(settled)
        self._look_ahead(settled)
        self._share(settled)
        if not quorum.agree():
            return 0
        trainer.step()
        if trainer.steps_done % self._plan.steps_per_epoch == 0:
            self._end_epoch()
        if settled.rank == 0:
            self._keep()
        return len(self._plan.indices(settled.step))

    def _keep(self) -> None:
        """Write a checkpoint if one is due."""
        step = self._trainer.steps_done
        if not self._fellows.first(self._checkpoints.is_due(step)):
            return
        whole = self._trainer.whole(self._trainer.state())
        if self._fellows.index == 0:
            # Whose it is makes it an object of its own: equal jobs do not share checkpoints.
            header = self._header() | {"replica": self._work.replica}
            self._checkpoints.write(step, header, whole)

    def _compute(self, part: Part) -> None:
        """Compute the gradients of this process's share of the batch; zeros where it has none."""
        trainer = self._trainer
        if part.step % self._plan.steps_per_epoch == 0:
            torch.manual_seed(epoch_seed(self._work.seed, self._plan.epoch(part.step)))
        trainer.module.train()
        batch, share = self._plan.indices(part.step), self._share_of(part, part.step)
        # The mean over the ranks becomes that over the batch, to which shares add by length.
        weight = len(share) / len(batch) * part.ranks
        if not len(share) and part.rank is not None and self._fellows.count > 1:
            share = batch[:_LEAST_ROWS]  # for nothing: fellows cannot compute without this process
        if len(share):
            trainer.backward(*self._samples.take(torch.from_numpy(share)), weight)
            return
        for parameter in trainer.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def _share(self, part: Part) -> None:
        """Replace gradients, loss and outputs of this process's share by those of the whole batch.

        All go in one all-reduce, which also brings the outputs of lost ranks' shares to those
        that compute them now: every rank knows the metrics of every batch it took part in.
        """
        trainer, batch = self._trainer, self._plan.indices(part.step)
        rows, mine = part.rows(len(batch), self._fellows), trainer.measured
        gradients = [p.grad for p in trainer.parameters if p.grad is not None]
        loss = gradients[0].new_zeros(1)
        outputs = loss.new_zeros(len(batch), *self.config.output_shape)
        if rows and mine is not None:
            loss += mine.loss * len(rows) / len(batch) * part.ranks
            outputs[rows.start : rows.stop] = mine.outputs * part.ranks
        parts = [*gradients, loss, outputs]
        flat = torch.cat([part.flatten() for part in parts])
        self._quorum.manager.allreduce(flat).wait()
        # The gradients are those of this process's part of the model; loss and outputs are not.
        self._fellows.add(flat[-loss.numel() - outputs.numel() :])
        for target, found in zip(parts, flat.split([p.numel() for p in parts]), strict=True):
            target.copy_(found.view_as(target))
        targets = self._samples.targets_of(torch.from_numpy(batch))
        trainer.measured = Measured(loss[0], outputs, targets)

    def _share_of(self, part: Part, step: int) -> Indices:
        """The samples of a step that fall to this process if the rank has its `part` in it."""
        batch = self._plan.indices(step)
        rows = part.rows(len(batch), self._fellows)
        return batch[rows.start : rows.stop]

    def _look_ahead(self, part: Part) -> None:
        """Have the samples fetched that this rank will need a window later."""
        windows, samples = self._plan.windows, self._samples
        if windows is None or isinstance(samples, Samples):
            return
        later = part.step + windows.size // self._plan.batch_size
        if later < self._total_steps:
            samples.prefetch(self._share_of(part, later))

    def _end_epoch(self) -> None:
        results = self._trainer.meter.results()
        if self._validation is not None:
            network, size = self._trainer.module, self._work.batch_size
            measured = evaluate(self.config, network, self._validation, size)
            results |= {f"val_{name}": value for name, value in measured.items()}
        self._history.epochs.append(results)

    def _progress(self, samples_per_s: float) -> dict[str, Any]:
        done = self._trainer.steps_done
        return {
            "at_ns": time.time_ns(),
            "step": done,
            "total_steps": self._total_steps,
            "epoch": min(self._plan.epoch(done) + 1, self._work.epochs),
            "total_epochs": self._work.epochs,
            "participants": self._quorum.expected.ranks,
            "samples_per_s": samples_per_s,
            "metrics": self._history.epochs[-1] if self._history.epochs else {},
        }

    def _state(self) -> dict[str, Any]:
        return {
            "tensors": self._trainer.state(),
            "steps_done": self._trainer.steps_done,
            "history": self._history.to_dict(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._trainer.load_state(state["tensors"], state["steps_done"])
        self._history = History.from_dict(state["history"])
