"""How far a training run or a transfer is, drawn where there is a terminal to draw on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lepton_ai.proto.v1 import job_pb2

__all__ = ["TrainingBar", "TransferBar", "metrics_text", "state_text"]


class _Bar:
    """A live bar; silent where the output is not a terminal."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), *columns)
        self._bar.disable = not self._bar.console.is_terminal

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()


class TransferBar(_Bar):
    """A live bar for bytes on their way; silent where the output is not a terminal."""

    def __init__(self) -> None:
        super().__init__(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())

    def follow(self, description: str) -> Callable[[int, int], None]:
        """A new line; call what is returned with the bytes carried so far and in all."""
        task = self._bar.add_task(description, total=None)

        def show(carried: int, size_bytes: int) -> None:
            self._bar.update(task, completed=carried, total=size_bytes)

        return show


class TrainingBar(_Bar):
    """A live bar for one job; silent where the output is not a terminal."""

    def __init__(self) -> None:
        detail = TextColumn("{task.fields[detail]}")
        super().__init__(TaskProgressColumn(), TimeRemainingColumn(), detail)
        self._task = self._bar.add_task("queued", total=None, detail="")

    def show_job(self, job: job_pb2.Job) -> None:
        """Draw a job's state."""
        self._bar.update(self._task, description=state_text(job.state))

    def show_progress(self, progress: job_pb2.JobProgress) -> None:
        """Draw how far it is."""
        ranks = f"{progress.participants} workers, {progress.samples_per_s:,.0f} samples/s"
        self._bar.update(
            self._task,
            description=f"epoch {progress.epoch}/{progress.total_epochs}"
            if progress.total_epochs
            else f"shard {progress.step}/{progress.total_steps}",
            completed=progress.step,
            total=progress.total_steps,
            detail=f"{ranks}  {metrics_text(progress.metrics)}",
        )


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Metrics on one line.

    Example:
        >>> metrics_text({"loss": 0.25, "accuracy": 0.9})
        'accuracy 0.9000  loss 0.2500'
    """
    return "  ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))


def state_text(state: job_pb2.JobState) -> str:
    """A job's state as people read it, such as ``running``."""
    return job_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()
