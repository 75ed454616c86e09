"""What a worker can be told."""

from __future__ import annotations

import os

from pydantic import Field

from lepton_runtime.settings import RuntimeSettings

__all__ = ["WorkerSettings"]


class WorkerSettings(RuntimeSettings):
    """Settings of a worker, in addition to those that all services share."""

    cpus: float = Field(
        default_factory=lambda: float(os.cpu_count() or 1),
        gt=0,
        description="Processor cores that it offers.",
    )
    inference_threads: int = Field(1, ge=1, description="Threads of the inference server.")
