"""In the process that trainers are copies of: it waits, and goes on as each of them."""

from __future__ import annotations

import gc
import os
import signal
import socket

from lepton_runtime.processes import die_with_parent

__all__ = ["FORK", "go_on_as_copy"]

FORK = b"f"
"""What the agent asks with."""
_READY = b"r"


def go_on_as_copy() -> bool:
    """Fork whenever the agent asks: returns True in each copy, and False once the agent is gone.

    The agent asks over standard input, and sends what shall be the copy's standard input and
    output, and its standard error; there the copy says its process id first. This process must
    have no threads: they would not be in the copies, but the locks that they hold.
    """
    control = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the agent sees by itself when copies end
    gc.freeze()  # or the first collection of each copy would touch all that they share
    control.sendall(_READY)
    while True:
        asked, streams, _, _ = socket.recv_fds(control, len(FORK), 2)
        if not asked:
            return False
        if os.fork() == 0:
            break
        for stream in streams:
            os.close(stream)
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    talk, errors = streams
    for stream, number in ((talk, 0), (talk, 1), (errors, 2)):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    os.write(1, f"{os.getpid()}\n".encode())
    return True
