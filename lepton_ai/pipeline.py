"""Several steps of a stream under way at once, with a bound."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, TypeVar

__all__ = ["in_order"]

_T = TypeVar("_T")


async def in_order(
    steps: AsyncIterator[Coroutine[Any, Any, _T]], window: int
) -> AsyncGenerator[_T]:
    """Results of `steps` in their order, with at most `window` of them under way.

    The first failure ends it; steps still under way are then cancelled and waited for.
    """
    running: deque[asyncio.Task[_T]] = deque()
    try:
        async for step in steps:
            running.append(asyncio.create_task(step))
            if len(running) >= window:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
