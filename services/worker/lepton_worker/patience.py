"""Calls that are made again while nobody answers: storage may be away for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from lepton_ai.errors import DeadlineExceededError, UnavailableError

__all__ = ["patiently"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.patience")
_ResultT = TypeVar("_ResultT")
# Less than a trainer waits for a chunk.
_PATIENCE_S = 90.0
_RETRY_S = 1.0


async def patiently(call: Callable[[], Awaitable[_ResultT]]) -> _ResultT:
    """What a call answers.

    Raises:
        UnavailableError: Nobody answered for a minute and a half.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await call()
        except (UnavailableError, DeadlineExceededError) as error:
            if time.monotonic() > deadline:
                raise
            _log.warning("tries again", reason=str(error))
        await asyncio.sleep(_RETRY_S)
