"""What a worker can be told."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from lepton_ai.rpc import TlsFiles
from lepton_runtime.settings import RuntimeSettings
from lepton_worker.devices import present

__all__ = ["Listen", "WorkerSettings"]

_CGROUP_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")


def _memory_bytes() -> int:
    """Memory of this machine, or less where a control group allows less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return physical
    return min(physical, int(allowed)) if allowed.isdigit() else physical


class Listen(NamedTuple):
    """Where the children of this node listen, and how other nodes reach them."""

    bind: str
    host: str
    tls: TlsFiles | None


def _half_of_memory() -> int:
    """Half of what this container or machine has."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no cgroup of version 2, or no limit in it
        available = min(available, int(_CGROUP_MEMORY_MAX.read_text()))
    return available // 2


class WorkerSettings(RuntimeSettings):
    """Settings of a worker, in addition to those that all services share."""

    cpus: float = Field(
        default_factory=lambda: float(os.cpu_count() or 1),
        gt=0,
        description="Processor cores that it offers.",
    )
    memory_bytes: int = Field(
        default_factory=_memory_bytes,
        gt=0,
        description="Memory that it offers to tasks that ask for a certain amount.",
    )
    gpus: int = Field(
        default_factory=present,
        ge=0,
        description="Accelerators that it offers.",
    )
    cache_bytes: int = Field(
        20 * 1024**3,
        ge=0,
        description="Disk space for copies of datasets, models and checkpoints; the least used go.",
    )
    inference_threads: int = Field(1, ge=1, description="Threads of the inference server.")
    inference_memory_bytes: int = Field(
        default_factory=_half_of_memory,
        ge=1024**2,
        description="What models loaded for inference may take; the least recently used are "
        "unloaded, and loaded again when asked for. Default: half of the memory.",
    )

    @property
    def listen(self) -> Listen:
        """Where children listen."""
        return Listen(self.host, self.reachable_host, self.tls)
