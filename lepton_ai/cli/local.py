"""Starts and ends the supervisor of a cluster on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from lepton_ai.cluster.profile import LOCK_FILE
from lepton_ai.errors import DeadlineExceededError, UnavailableError

__all__ = ["LocalOptions", "attached", "detached", "end"]

_END_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True)
class LocalOptions:
    """What to start: a folder, the gateway's port (0 for a free one), and how many nodes."""

    home: Path
    port: int
    workers: int
    storage: int


@contextlib.contextmanager
def attached(
    options: LocalOptions, tell: Callable[[str], None]
) -> Generator[subprocess.Popen[str]]:
    """A ready cluster that ends with this block, or with this process.

    Raises:
        UnavailableError: It did not start; says why.
    """
    process = _spawn(options, subprocess.PIPE)
    try:
        _until_ready(process, tell)
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()  # the supervisor ends with its input
        process.wait()
        process.stdout.close()


def detached(options: LocalOptions, tell: Callable[[str], None]) -> None:
    """Start a cluster that stays until `end`.

    Raises:
        UnavailableError: It did not start; says why.
    """
    _until_ready(_spawn(options, subprocess.DEVNULL), tell)


def end(home: Path) -> bool:
    """End the cluster of a folder and wait until it is gone; False when there is none.

    Raises:
        DeadlineExceededError: It does not end.
    """
    try:
        lock = os.open(home / LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        return False
    with os.fdopen(lock) as file:
        if _free(file.fileno()):
            return False
        os.kill(int(file.read()), signal.SIGTERM)
        deadline = time.monotonic() + _END_S
        while not _free(file.fileno()):
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"the cluster did not end within {_END_S:g} s")
            time.sleep(_POLL_S)
    return True


def _spawn(options: LocalOptions, stdin: int) -> subprocess.Popen[str]:
    options.home.mkdir(parents=True, exist_ok=True)
    with (options.home / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "lepton_runtime.local",
                f"--home={options.home}",
                f"--port={options.port}",
                f"--workers={options.workers}",
                f"--storage={options.storage}",
            ],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def _until_ready(process: subprocess.Popen[str], tell: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        told: dict[str, str] = json.loads(line)
        if "ready" in told:
            return
        if "error" in told:
            process.wait()
            raise UnavailableError(told["error"])
        tell(told["step"])
    process.wait()
    raise UnavailableError("the cluster did not start", hint="see supervisor.log in its folder")


def _free(lock: int) -> bool:
    """Whether nobody holds the lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True
