"""How late a peer may be in a step before the others do without it."""

from __future__ import annotations

__all__ = ["Lateness"]

# As many times as long as the longest step of late, within bounds. A peer that is dead is mostly
# noticed at once, by its closed connection: this is for one that hangs, and for when it is not.
_STEPS = 10.0
_LEAST_S, _USUAL_S, _MOST_S = 1.0, 5.0, 60.0
# Ranks begin one after the other: the first steps say nothing of the pace.
_FIRST_STEPS = 20
# What a step counts for in the next: the pause at the end of an epoch is remembered for hundreds.
_DECAY = 0.99


class Lateness:
    """Learns from the steps of a rank.

    Ranks that are slow rather than hung get there in the end: after each step that failed the next
    may take twice as long.
    """

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._taken = 0
        self._failed = 0

    @property
    def limit_s(self) -> float:
        """How long a collective of the next step may take, in seconds."""
        usual_s = _USUAL_S
        if self._taken > _FIRST_STEPS:
            usual_s = min(max(_STEPS * self._longest_s, _LEAST_S), _USUAL_S)
        return min(usual_s * 2.0**self._failed, _MOST_S)

    def step_taken(self, seconds: float) -> None:
        """A step counts.

        Args:
            seconds: Since the one before.
        """
        self._taken += 1
        self._failed = 0
        if self._taken > _FIRST_STEPS:
            counts_s = min(seconds, _USUAL_S / _STEPS)
            self._longest_s = max(counts_s, _DECAY * self._longest_s)

    def step_failed(self) -> None:
        """A step does not count: somebody was too late, or gone."""
        self._failed += 1
