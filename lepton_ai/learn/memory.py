"""Memory that a training step frees and the next one asks for again."""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["keep_freed_memory"]

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_LARGEST_KEPT_BLOCK_BYTES = 32 << 20
"""The most that glibc takes from its heap, where freed blocks are found again."""
_KEPT_BYTES = 512 << 20


@cache
def keep_freed_memory() -> None:
    """Let this process keep up to 512 MiB of freed memory, from now on.

    Every step allocates the same activations and gradients. By default glibc hands such large
    blocks back to the kernel at once, and each step pays for their page faults again: a quarter of
    the time it takes to train a small network on a processor.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # Another C library, with other habits.
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
