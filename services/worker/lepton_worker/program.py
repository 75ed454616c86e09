"""What a user's program finds when it starts: its arguments, its folders, its environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lepton_ai.proto.v1 import task_pb2

__all__ = ["Folders", "command_of", "environment_of"]

# All else of the agent's environment stays with the agent: keys and addresses of the cluster.
_PASSED_ON = (
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "SSL_CERT_FILE",
    "TZ",
)


@dataclass(frozen=True)
class Folders:
    """The folders of one rank of one attempt.

    Args:
        root: Holds the others; it goes when the rank has ended.
    """

    root: Path

    @property
    def source(self) -> Path:
        """What was submitted: the working folder."""
        return self.root / "source"

    @property
    def checkpoints(self) -> Path:
        """What rank 0 puts here, every rank of the next attempt finds here."""
        return self.root / "checkpoints"

    @property
    def output(self) -> Path:
        """What is put here is the job's result."""
        return self.root / "output"

    @property
    def home(self) -> Path:
        """For temporary files and what libraries keep in the home folder."""
        return self.root / "home"

    def make(self) -> None:
        """Make them all."""
        for folder in (self.source, self.checkpoints, self.output, self.home):
            folder.mkdir(parents=True)


def command_of(spec: task_pb2.ScriptTask) -> list[str]:
    """The command line."""
    return [sys.executable, spec.spec.entry, *spec.spec.arguments]


def environment_of(
    task: task_pb2.Task, folders: Folders, store: str, gpus: Sequence[int]
) -> dict[str, str]:
    """Every variable: those that torchrun sets, ours, and a few of the agent's.

    Args:
        task: The rank.
        folders: Its folders.
        store: ``host:port`` of the attempt's rendezvous store.
        gpus: Accelerators that it has; of the others it sees nothing.
    """
    script = task.script
    host, _, port = store.rpartition(":")
    own = {
        "HOME": str(folders.home),
        "LEPTON_CHECKPOINT_DIR": str(folders.checkpoints),
        "LEPTON_JOB_ID": script.job_id,
        "LEPTON_OUTPUT_DIR": str(folders.output),
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
        "TMPDIR": str(folders.home),
        "OMP_NUM_THREADS": str(max(1, int(task.resources.cpus))),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "ROLE_NAME": "default",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_RESTART_COUNT": str(script.restarts),
        "TORCHELASTIC_RUN_ID": script.job_id,
        # Ranks use the store there is; without this, rank 0 would try to keep one there.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    }
    numbers = {
        "RANK": script.rank,
        "WORLD_SIZE": script.world_size,
        "LOCAL_RANK": script.local_rank,
        "LOCAL_WORLD_SIZE": script.local_world_size,
        "GROUP_RANK": script.group_rank,
        "GROUP_WORLD_SIZE": script.group_world_size,
        "ROLE_RANK": script.rank,
        "ROLE_WORLD_SIZE": script.world_size,
    }
    passed_on: Mapping[str, str] = {n: os.environ[n] for n in _PASSED_ON if n in os.environ}
    return {**passed_on, **own, **{name: str(value) for name, value in numbers.items()}}
