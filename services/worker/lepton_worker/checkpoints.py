"""Checkpoints of a job: written by one rank while it trains, for the loss of all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lepton_ai.learn.files import ModelFile, write_model

__all__ = ["Checkpoints"]

_FILE = "checkpoint.safetensors"


class Checkpoints:
    """Writes the state now and then, at most one at a time, in a thread.

    Args:
        folder: Where the file is written.
        interval_s: Seconds between two.
        every_steps: Steps between two, where that comes sooner; 0 for none.
        tell: Told the step and the path of each; `stored` answers it.
    """

    def __init__(
        self,
        folder: Path,
        interval_s: float,
        every_steps: int,
        tell: Callable[[int, Path], None],
    ) -> None:
        self._path = folder / _FILE
        self._interval_s = interval_s
        self._every_steps = every_steps
        self._tell = tell
        self._written_at = time.monotonic()
        self._written_step = 0
        self._outstanding = threading.Event()
        self._writer: threading.Thread | None = None

    def is_due(self, step: int) -> bool:
        """Whether it is time for one, and the last one is stored."""
        if self._outstanding.is_set():
            return False
        waited = time.monotonic() - self._written_at >= self._interval_s
        return waited or 0 < self._every_steps <= step - self._written_step

    def write(self, step: int, header: dict[str, Any], tensors: Mapping[str, Any]) -> None:
        """Write the state as it is now; training goes on meanwhile."""
        self._outstanding.set()
        self._written_at, self._written_step = time.monotonic(), step
        file = ModelFile(header, {name: value.clone() for name, value in tensors.items()})
        self._writer = threading.Thread(target=self._write, args=(step, file), daemon=True)
        self._writer.start()

    def finish(self) -> None:
        """Wait for one that is being written."""
        if self._writer is not None:
            self._writer.join()

    def stored(self) -> None:
        """The file is not needed any more."""
        self._outstanding.clear()

    def _write(self, step: int, file: ModelFile) -> None:
        write_model(self._path, file)
        self._tell(step, self._path)
