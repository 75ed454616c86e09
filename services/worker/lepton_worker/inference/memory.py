"""How much memory this process uses, and giving back what it has freed."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

_STATM = Path("/proc/self/statm")


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc's <malloc.h>."""

    _fields_ = (
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def allocated_bytes() -> int:
    """What is allocated from the heap now, freed blocks that the heap keeps left out.

    The difference of two calls is the size of what was made in between, which that of the resident
    size is not: a heap that has free blocks grows by less, one that is in pieces by more. Without
    glibc it is the resident size all the same.
    """
    mallinfo2 = _function("mallinfo2", _MallInfo)
    if mallinfo2 is None:
        return resident_bytes()
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def resident_bytes() -> int:
    """Memory of this process that is in the machine's."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Hand freed memory back to the machine; takes milliseconds."""
    malloc_trim = _function("malloc_trim", ctypes.c_int)
    if malloc_trim is not None:
        malloc_trim(0)


@cache
def _function(name: str, result: Any) -> Any:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function.restype = result
    return function
