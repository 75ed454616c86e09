"""Memory that is not handed back only to be asked for again, and garbage that waits its turn."""

from __future__ import annotations

import asyncio
import ctypes
import gc

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_KEPT_BYTES = 64 * 1024 * 1024
_COLLECTION_PERIOD_S = 1.0


def keep_freed_memory() -> None:
    """Let glibc keep up to 64 MiB of freed memory, in one heap for all threads.

    ONNX Runtime frees a batch's intermediate tensors after each run. By default glibc returns such
    large blocks at once, and every batch pays for its page faults again, which can take more time
    than the model. (ONNX Runtime's own arena would keep them, too, but one for each model, for
    ever, and larger with every new shape.) To be called before other threads are started.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # Another C library, with other habits.
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 2)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


async def collect_garbage() -> None:
    """Look for reference cycles once a second instead of after every few hundred requests.

    Requests make no cycles, so what waits is little; but each look walks over all that is alive,
    which costs most when most requests are waiting. What was loaded so far is left out for good.
    """
    gc.freeze()
    gc.disable()
    try:
        while True:
            await asyncio.sleep(_COLLECTION_PERIOD_S)
            gc.collect()
    finally:
        gc.enable()
