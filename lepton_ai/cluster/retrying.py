"""Asking again, where that is safe and helps: inference changes nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lepton_ai.errors import LeptonError, ResourceExhaustedError, UnavailableError

__all__ = ["pause_before_retry", "retried"]

_TRIES = 6
_FIRST_PAUSE_S = 0.1
_ResultT = TypeVar("_ResultT")


def pause_before_retry(error: LeptonError, tries: int, left_s: float) -> float | None:
    """How long to wait before asking again, in seconds; None: do not.

    Only what was refused before any work, or broke off on the way, is asked again; never what a
    model failed on, and never what is too large. What the server says counts; else each pause is
    twice the one before.

    Args:
        error: What came of the last try.
        tries: How many there have been.
        left_s: Seconds to the caller's deadline.
    """
    wait_s = error.retry_after_s
    if isinstance(error, UnavailableError):
        wait_s = _FIRST_PAUSE_S * 2 ** (tries - 1) if wait_s is None else wait_s
    elif not isinstance(error, ResourceExhaustedError):
        return None
    return wait_s if wait_s is not None and tries < _TRIES and wait_s < left_s else None


async def retried(ask: Callable[[float], Awaitable[_ResultT]], deadline_s: float) -> _ResultT:
    """What `ask` answers, in the end.

    Args:
        ask: Told how many seconds are left.
        deadline_s: When to be done, on the event loop's clock.

    Raises:
        LeptonError: The last try's, when it is not worth another or there is no time for it.
    """
    tries = 0
    while True:
        left_s = max(deadline_s - asyncio.get_running_loop().time(), 0.0)
        try:
            return await ask(left_s)
        except LeptonError as error:
            tries += 1
            left_s = deadline_s - asyncio.get_running_loop().time()
            pause_s = pause_before_retry(error, tries, left_s)
            if pause_s is None:
                raise
        # Spread, so that many that were refused at once do not come back at once.
        await asyncio.sleep(pause_s * random.uniform(1.0, 1.2))  # noqa: S311 - no secret
