"""Whether batches are computed beside the event loop, or on it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Overlap"]

_WINDOW_NS = 100_000_000
_PATIENCE_NS = 1_000_000_000
# Processors that a process uses whose event loop hardly waits for anything, if it has the time.
_BUSY = 0.85
# Less than this, and two threads do what one could.
_MORE_THAN_ONE = 1.1
# How much the newest window counts, so that no chance decides for the next second.
_NEWEST_WEIGHT = 0.3
# Requests in a batch. Of who comes alone nothing can be read while a batch is computed.
_SEVERAL = 2


class Overlap:
    """Learns from what the process gets of the processors whether a second thread is of use.

    Where processors are free, a batch is computed while the loop reads the next requests. Where
    others compete for them, the two threads mostly wait for their turn, and for the interpreter's
    lock from who waits for a turn: one thread that does both gets more done. An idle server is
    better off with one thread as well, which answers without waking another.

    Attributes:
        pays: Whether batches are to be computed beside the loop.
    """

    def __init__(self, now_ns: int, cpu_ns: int) -> None:
        self.pays = False
        self._began_ns = now_ns
        self._cpu_ns = cpu_ns
        self._batches = self._requests = 0
        self._try_from_ns = now_ns
        self._both_used = 0.0  # by both threads, a moving average; 0 before their first window

    def observe(self, now_ns: int, requests: int, clock_cpu_ns: Callable[[], int]) -> None:
        """Learn from a batch, and from a window of time once it is over.

        Args:
            now_ns: On the monotonic clock.
            requests: In the batch.
            clock_cpu_ns: Tells how long all threads of the process have computed.
        """
        self._batches += 1
        self._requests += requests
        lasted_ns = now_ns - self._began_ns
        if lasted_ns < _WINDOW_NS:
            return
        cpu_ns = clock_cpu_ns()
        used = (cpu_ns - self._cpu_ns) / lasted_ns
        if self.pays:
            self._keep_if_it_helps(now_ns, used)
        else:
            several = self._requests >= _SEVERAL * self._batches
            self.pays = several and used > _BUSY and now_ns >= self._try_from_ns
            self._both_used = 0.0
        self._began_ns, self._cpu_ns = now_ns, cpu_ns
        self._batches = self._requests = 0

    def _keep_if_it_helps(self, now_ns: int, used: float) -> None:
        known = self._both_used or used
        self._both_used = known + _NEWEST_WEIGHT * (used - known)
        if self._both_used < _MORE_THAN_ONE:
            self.pays = False
            self._try_from_ns = now_ns + _PATIENCE_NS
