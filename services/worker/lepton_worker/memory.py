"""What a task may use of the node's memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from lepton_worker.process_tree import memory_bytes

__all__ = ["killed_over", "out_of_memory", "until_over"]

_LOOK_S = 0.25
_MIB = 1024 * 1024


def out_of_memory(rank: int, used_bytes: int, limit_bytes: int) -> str:
    """What is said of a rank that was ended for its memory."""
    used, allowed = used_bytes // _MIB, limit_bytes // _MIB
    return f"rank {rank} ran out of memory: it used {used} MiB of {allowed}: ask for more"


async def until_over(pid: int, limit_bytes: int) -> int:
    """Wait until a process and those below it use more than a limit; returns how much.

    Args:
        pid: The process.
        limit_bytes: What they may use together; with 0 this waits for ever.
    """
    if not limit_bytes:
        await asyncio.Event().wait()
    while True:
        used = await asyncio.to_thread(memory_bytes, pid, limit_bytes)
        if used > limit_bytes:
            return used
        await asyncio.sleep(_LOOK_S)


async def killed_over(pid: int, limit_bytes: int) -> int:
    """Kill a process once it uses more than a limit. Arguments and answer as of `until_over`."""
    used = await until_over(pid, limit_bytes)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return used
