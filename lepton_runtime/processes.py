"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path
from shutil import which

from lepton_ai.errors import NotFoundError

__all__ = ["die_with_parent", "find_program", "free_port"]

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Be killed when the parent dies (Linux, prctl(2)); elsewhere do nothing.

    Call it first thing in the child, or as `preexec_fn` of a program that is not ours.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def find_program(name: str) -> str:
    """Path of a program: the newest is the one on the PATH, else the one from a wheel.

    Raises:
        NotFoundError: It is nowhere.
    """
    wheel = Path(sys.executable).parent / name
    others = [path for path in os.get_exec_path() if Path(path) != wheel.parent]
    found = which(name, path=os.pathsep.join(others)) or which(str(wheel))
    if found is None:
        raise NotFoundError(
            f"{name} is not installed", hint="install lepton-ai[servers], or put it on the PATH"
        )
    return found


def free_port() -> int:
    """A port of the loopback interface that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
