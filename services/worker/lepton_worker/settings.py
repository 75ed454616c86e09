"""What a worker can be told."""

from __future__ import annotations

import os
from typing import NamedTuple

from pydantic import Field

from lepton_ai.rpc import TlsFiles
from lepton_runtime.settings import RuntimeSettings

__all__ = ["Listen", "WorkerSettings"]


class Listen(NamedTuple):
    """Where the children of this node listen, and how other nodes reach them."""

    bind: str
    host: str
    tls: TlsFiles | None


class WorkerSettings(RuntimeSettings):
    """Settings of a worker, in addition to those that all services share."""

    cpus: float = Field(
        default_factory=lambda: float(os.cpu_count() or 1),
        gt=0,
        description="Processor cores that it offers.",
    )
    cache_bytes: int = Field(
        20 * 1024**3,
        ge=0,
        description="Disk space for copies of datasets, models and checkpoints; the least used go.",
    )
    inference_threads: int = Field(1, ge=1, description="Threads of the inference server.")

    @property
    def listen(self) -> Listen:
        """Where children listen."""
        return Listen(self.host, self.reachable_host, self.tls)
