"""What can be hooked into a run: early stopping, checkpoints, and callbacks of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.learn.files import ModelFile, write_model
from lepton_ai.learn.history import History

if TYPE_CHECKING:
    from torch import Tensor

    from lepton_ai.learn.config import ModelConfig
    from lepton_ai.learn.trainer import Trainer

__all__ = ["Callback", "Checkpoint", "EarlyStopping", "Run"]


@dataclass
class Run:
    """A run as callbacks see it.

    Attributes:
        config: The model.
        trainer: Module, optimizer and step count.
        history: Loss and metrics of every epoch so far.
        epochs: Epochs that were asked for.
        stopped: Whether a callback has asked to end the run after this epoch.
    """

    config: ModelConfig
    trainer: Trainer
    history: History
    epochs: int
    stopped: bool = False

    def stop(self) -> None:
        """End the run after this epoch."""
        self.stopped = True


class Callback:
    """Base of all callbacks; override what is needed.

    Example:
        >>> class PrintLoss(Callback):
        ...     def on_epoch_end(self, run):
        ...         print(run.history["loss"][-1])
    """

    def on_fit_begin(self, run: Run) -> None:
        """Called once, before the first step."""

    def on_epoch_end(self, run: Run) -> None:
        """Called after each epoch; its results are the last of ``run.history``."""

    def on_fit_end(self, run: Run) -> None:
        """Called once, after the last epoch."""


class EarlyStopping(Callback):
    """Ends a run once a metric has not improved for some epochs, and goes back to the best weights.

    Args:
        monitor: What to watch, such as ``'val_loss'``.
        patience: Epochs without improvement after which the run ends.
        mode: Whether ``'min'`` or ``'max'`` is better; by default ``'min'`` for losses and errors
            and ``'max'`` for the rest.

    Example:
        >>> EarlyStopping("val_accuracy", patience=2).mode
        'max'
    """

    def __init__(
        self, monitor: str = "val_loss", *, patience: int = 3, mode: str | None = None
    ) -> None:
        if mode not in (None, "min", "max"):
            raise InvalidArgumentError(f"mode is {mode!r}", hint="it must be 'min' or 'max'")
        falling = monitor.removeprefix("val_") in ("loss", "mse", "mae")
        self.monitor = monitor
        self.patience = patience
        self.mode = mode or ("min" if falling else "max")
        self._best_weights: dict[str, Tensor] = {}

    @override
    def on_fit_begin(self, run: Run) -> None:
        self._best_weights = {}

    @override
    def on_epoch_end(self, run: Run) -> None:
        values = run.history[self.monitor]
        best = (min if self.mode == "min" else max)(range(len(values)), key=values.__getitem__)
        if best == len(values) - 1:
            weights = run.trainer.module.state_dict()
            self._best_weights = {name: value.clone() for name, value in weights.items()}
        if len(values) - 1 - best >= self.patience:
            run.stop()

    @override
    def on_fit_end(self, run: Run) -> None:
        if self._best_weights:
            run.trainer.module.load_state_dict(self._best_weights)


class Checkpoint(Callback):
    """Writes all that `fit` needs to resume, after every epoch. The file also loads as a model.

    Args:
        path: The file, replaced whole each time.

    Example:
        >>> import tempfile
        >>> from lepton_ai import Sequential
        >>> model = Sequential((1,), [("dense", {"units": 1})])
        >>> model.compile(loss="mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/run.safetensors"
        ...     _ = model.fit([0.0, 1.0], [0.0, 1.0], epochs=2, callbacks=[Checkpoint(path)])
        ...     history = model.fit([0.0, 1.0], [0.0, 1.0], epochs=3, resume_from=path)
        >>> len(history)
        3
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @override
    def on_fit_begin(self, run: Run) -> None:
        run.config.to_dict()  # Refuses a model that cannot be written before it is trained.

    @override
    def on_epoch_end(self, run: Run) -> None:
        header = {
            "model": run.config.to_dict(),
            "history": run.history.to_dict(),
            "run": {"steps_done": run.trainer.steps_done, "epochs": run.epochs},
        }
        write_model(self.path, ModelFile(header, run.trainer.state()))
