"""Cancelling that arrives.

Before Python 3.12 `asyncio.wait_for` forgets a cancellation that comes together with the answer it
waits for, and libraries such as nats-py wait by it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

__all__ = ["end", "raise_if_cancelled"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.cancellation")
_AGAIN_S = 2.0


def raise_if_cancelled() -> None:
    """Be cancelled here, if the current task was and a library did not tell.

    Raises:
        asyncio.CancelledError: It was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end(task: asyncio.Task[Any], again_s: float = _AGAIN_S) -> None:
    """Cancel a task and wait until it has ended, however often that takes.

    Args:
        task: Its outcome is left alone.
        again_s: After this long it is cancelled anew.
    """
    task.cancel()
    while not (await asyncio.wait([task], timeout=again_s))[0]:
        _log.warning("cancelled again", task=task.get_name())
        task.cancel()
