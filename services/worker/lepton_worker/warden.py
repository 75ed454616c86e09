"""`python -m lepton_worker.warden`: runs a program that is not ours, and lets nothing outlive it.

The program has a session of its own. Whatever it starts, however it hides, stays below this
process (a subreaper, prctl(2)) and ends when the program does, when the agent says so, or when
the agent is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from typing import Any

from lepton_runtime.processes import leashed
from lepton_worker.channel import AgentChannel
from lepton_worker.process_tree import descendants

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Between being asked to end and being killed.
_GRACE_S = 1.5
_LOOK_S = 0.02


def main() -> None:
    """Run what the agent says; tell how it ended."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    prctl(_PR_SET_PDEATHSIG, 0)  # the end of its input tells of the agent's, in time to clean up
    signal.signal(signal.SIGTERM, _stop)
    channel = AgentChannel()
    work = channel.hear()
    if work is None:
        return
    threading.Thread(target=_follow_agent, args=(channel,), daemon=True).start()
    process = _start(work)
    try:
        channel.tell("ended", code=process.wait())
    except SystemExit:
        _ask(process)
    finally:
        _kill_all()
    # The thread that listens keeps an ordinary exit from its work.
    os._exit(0)


def _start(work: dict[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        leashed(work["command"]),
        cwd=work["folder"],
        env=work["environment"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _stop(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise SystemExit


def _follow_agent(channel: AgentChannel) -> None:
    while channel.hear() is not None:
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _ask(process: subprocess.Popen[bytes]) -> None:
    """Let the program end by itself, for a moment."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)


def _kill_all() -> None:
    """Kill what is left, until nothing is: what is killed may be starting another."""
    while left := descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    main()
