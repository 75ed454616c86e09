"""Works off a queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

import structlog

from lepton_ai.errors import LeptonError
from lepton_runtime.cancellation import raise_if_cancelled
from lepton_runtime.queues import Delivery, WorkQueue

__all__ = ["consume"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.queued")


async def consume(queue: WorkQueue, handle: Callable[[Delivery], Awaitable[None]]) -> None:
    """Handle one delivery after the other until cancelled.

    What cannot be handled now is left: it comes again, once it has been silent for long enough.
    """
    async with aclosing(queue.taken()) as deliveries:
        async for delivery in deliveries:
            raise_if_cancelled()
            try:
                await handle(delivery)
            except LeptonError as error:
                _log.warning("delivery_left", reason=str(error))
