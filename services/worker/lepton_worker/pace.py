"""Whether a trainer still takes steps: one that lives and takes none has stalled."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]

# The first step waits for peers, and for kernels to be made.
_FIRST_S = 120.0
_LEAST_S = 15.0
# A pause is no stall before it is so many times the longest that ended by itself.
_PAUSES = 4


class Pace:
    """The pauses between the steps of one trainer.

    Args:
        now: Seconds, from any beginning.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: float | None = None
        self._longest_s = 0.0
        self._steps = False
        self._patience_s = _FIRST_S

    def begin(self) -> None:
        """It is ready to take steps."""
        self._last = self._now()

    def step(self) -> bool:
        """It took one, or several; answers whether they are its first."""
        first = not self._steps
        if self._last is not None and not first:
            self._longest_s = max(self._longest_s, self._now() - self._last)
        self._steps = True
        self._last = self._now()
        self._patience_s = max(_LEAST_S, _PAUSES * self._longest_s)
        return first

    def end(self) -> None:
        """It has none left to take."""
        self._last = None

    @property
    def has_begun(self) -> bool:
        """Whether it has steps to take."""
        return self._last is not None

    @property
    def stalled_s(self) -> float:
        """Seconds without a step where they are too many, else 0."""
        pause_s = self._now() - self._last if self._last is not None else 0.0
        return pause_s if pause_s > self._patience_s else 0.0
