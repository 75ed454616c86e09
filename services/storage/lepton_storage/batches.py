"""Work that costs less together: whatever has come while some of it was done makes the next batch.

Nothing waits where nothing is being done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Batches"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    size: int
    done: asyncio.Future[Result]


class Batches(Generic[Item, Result]):
    """Does items in batches. How many wait is bounded by how many callers there are.

    Args:
        work: Does a batch; answers the result of each item, or what went wrong with it.
        at_once: How many batches may be done at the same time.
        max_items: The most items in a batch.
        max_size: The most that a batch's sizes add up to; one item alone may be larger.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        at_once: int,
        max_items: int,
        max_size: int,
    ) -> None:
        self._work = work
        self._at_once = at_once
        self._max_items = max_items
        self._max_size = max_size
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._working: set[asyncio.Task[None]] = set()
        # Not how many tasks there are: one that has found nothing more to do takes nothing up.
        self._busy = 0

    async def do(self, item: Item, size: int) -> Result:
        """The result of an item; raises what went wrong with it.

        Args:
            item: What to do.
            size: How much of a batch it takes.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, size, done))
        if self._busy < self._at_once:
            self._busy += 1
            task = asyncio.create_task(self._do_all())
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        return await done

    async def _do_all(self) -> None:
        try:
            while self._waiting:
                await self._do_some(self._next())
        finally:
            self._busy -= 1

    async def _do_some(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        try:
            results = await self._work([waiting.item for waiting in batch])
            for waiting, result in zip(batch, results, strict=True):
                _settle(waiting.done, result)
        except Exception as error:  # noqa: BLE001 - each caller is told
            for waiting in batch:
                _settle(waiting.done, error)
        finally:
            for waiting in batch:
                waiting.done.cancel()  # nothing, where it is settled

    def _next(self) -> list[_Waiting[Item, Result]]:
        batch = [self._waiting.popleft()]
        size = batch[0].size
        while self._waiting and len(batch) < self._max_items:
            size += self._waiting[0].size
            if size > self._max_size:
                break
            batch.append(self._waiting.popleft())
        return batch


def _settle(done: asyncio.Future[Result], result: Result | Exception) -> None:
    if done.done():  # the caller has given up
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)
