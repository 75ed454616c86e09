"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from lepton_ai.errors import NotFoundError

__all__ = ["die_with_parent", "find_program", "free_port", "leashed"]

_PR_SET_PDEATHSIG = 1
# Becomes the program, with the signal set; the parent may have died before that.
_LEASH = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)})
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def die_with_parent() -> None:
    """Be killed when the parent dies (Linux, prctl(2)); elsewhere do nothing.

    Call it first thing in a program of ours. Never as `preexec_fn`: Python code between fork and
    exec crashes where gRPC's threads run. For programs that are not ours there is `leashed`.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def leashed(command: Sequence[str]) -> list[str]:
    """The command that runs `command` as a child that is killed when this process dies."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]


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
