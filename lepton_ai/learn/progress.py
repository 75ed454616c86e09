"""A progress bar in a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

__all__ = ["announce", "epoch_progress"]


@contextmanager
def epoch_progress(epoch: int, epochs: int, batches: int) -> Generator[Callable[[], None] | None]:
    """What to call after each batch of an epoch, or None where nobody watches.

    Args:
        epoch: The epoch, counted from zero.
        epochs: Epochs in the run.
        batches: Batches in the epoch.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"epoch {epoch + 1}/{epochs}", total=batches)
        yield lambda: progress.advance(task)


def announce(epoch: int, epochs: int, results: Mapping[str, float]) -> None:
    """Say in a terminal what an epoch, counted from one, came to."""
    if sys.stderr.isatty():
        values = "  ".join(f"{name} {value:.4f}" for name, value in results.items())
        sys.stderr.write(f"epoch {epoch}/{epochs}  {values}\n")
