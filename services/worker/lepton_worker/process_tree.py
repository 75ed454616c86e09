"""A process with all that it has started: which they are, and what memory they use (Linux)."""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from pathlib import Path

__all__ = ["descendants", "is_stopped", "memory_bytes"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, parents before children."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                _, parent = _state_and_parent(int(entry.name))
                children[parent].append(int(entry.name))
    found = list(children[pid])
    for each in found:  # grows as it goes
        found += children[each]
    return found


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process, so that none of its threads goes on."""
    try:
        state, _ = _state_and_parent(pid)
    except (OSError, IndexError):
        return False  # it has ended
    return state == b"T"


def memory_bytes(pid: int, limit_bytes: int) -> int:
    """Memory that a process and those below it use; what they share counts once.

    Args:
        pid: The process.
        limit_bytes: What it may use: the exact figure is looked up only above it, for it is dear.
    """
    processes = [pid, *descendants(pid)]
    resident = sum(map(_resident, processes))
    return resident if resident <= limit_bytes else sum(map(_proportional, processes))


def _state_and_parent(pid: int) -> tuple[bytes, int]:
    # After the name, which is in brackets and may hold anything.
    stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return stat[0], int(stat[1])


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0  # it has ended


def _proportional(pid: int) -> int:
    try:
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else _resident(pid)
