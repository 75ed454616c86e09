"""How glibc keeps memory that was freed and will be asked for again."""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["keep_freed_memory", "use_one_heap"]

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_LARGEST_KEPT_BLOCK_BYTES = 32 << 20
"""The most that glibc takes from its heap, where freed blocks are found again."""


@cache
def keep_freed_memory(kept_bytes: int = 512 << 20) -> None:
    """Let this process keep so much freed memory, from now on.

    What trains, infers or carries bytes allocates the same large blocks again and again. By
    default glibc hands such blocks back to the kernel at once, and each time their page faults are
    paid for again: a quarter of the time it takes to train a small network on a processor.
    """
    _mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK_BYTES)
    _mallopt(_M_TRIM_THRESHOLD, kept_bytes)


def use_one_heap() -> None:
    """Have all threads allocate from one heap, so that one finds what another freed.

    To be called before other threads are started.
    """
    _mallopt(_M_ARENA_MAX, 1)


def _mallopt(option: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # Another C library has other habits.
        mallopt(option, value)
