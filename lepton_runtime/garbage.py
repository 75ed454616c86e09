"""Garbage that waits its turn."""

from __future__ import annotations

import asyncio
import gc

__all__ = ["collect_garbage"]

_PERIOD_S = 1.0


async def collect_garbage() -> None:
    """Look for reference cycles once a second instead of after every few hundred requests.

    Requests make no cycles, so what waits is little; but each look walks over all that is alive,
    which costs most when most requests are waiting. What was loaded so far is left out for good.
    """
    gc.freeze()
    gc.disable()
    try:
        while True:
            await asyncio.sleep(_PERIOD_S)
            gc.collect()
    finally:
        gc.enable()
