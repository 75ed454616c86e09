"""Where batches are computed: on the event loop, or by threads beside it.

Whatever has arrived while one batch was computed makes the next.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from lepton_ai.errors import (
    DeadlineExceededError,
    InternalError,
    LeptonError,
    UnavailableError,
)
from lepton_worker.inference.cache import AnswerCache
from lepton_worker.inference.computing import Outcomes, compute
from lepton_worker.inference.model import Servable
from lepton_worker.inference.overlap import Overlap
from lepton_worker.inference.queue import Batch, Outcome, RequestQueue, Work
from lepton_worker.inference.statistics import BatchTimes, ModelStatistics

# A batch that takes longer than this is not computed on the event loop.
_LONGEST_ON_LOOP_NS = 5_000_000

_log = logging.getLogger(__name__)


class Lane:
    """One version of one model: its queue, and what came of it.

    What waits in `queue` is touched under the batcher's lock only, everything else on the event
    loop only.

    Attributes:
        label: Name and version, for messages.
        model: What computes; None while it sleeps, which it does only when nothing is pending.
        loadable: Where it is loaded from again.
        queue: What waits.
        signature: What the model takes and gives.
        uniform: Whether every row of it takes as long to compute as another.
        size_bytes: Memory the model takes while it is loaded.
        statistics: What came of it.
        pending: Works taken and not yet answered.
        used_ns: When work came last, on the monotonic clock.
        loads: How often it was loaded again.
        cache: Answers kept for requests that come again; None for none.
        wake: Called when work comes while it sleeps.
    """

    def __init__(
        self,
        label: str,
        model: Servable,
        queue: RequestQueue,
        loadable: Any = None,
        cache_bytes: int = 0,
    ) -> None:
        self.label = label
        self.model: Servable | None = model
        self.loadable = loadable
        self.queue = queue
        self.signature = model.signature
        self.uniform = model.uniform
        self.size_bytes = model.size_bytes
        self.statistics = ModelStatistics()
        self.pending = 0
        self.used_ns = time.monotonic_ns()
        self.loads = 0
        self.cache = AnswerCache(cache_bytes) if cache_bytes else None
        self.wake: Callable[[Lane], None] = _stay_asleep
        self._drained: asyncio.Event | None = None

    @property
    def closed(self) -> bool:
        """Whether it takes no more work."""
        return self._drained is not None

    def finish(self, count: int) -> None:
        """Account for works that have left the queue and been answered."""
        self.pending -= count
        if self._drained is not None and not self.pending:
            self._drained.set()

    async def close(self, timeout_s: float) -> None:
        """Take no more work, and wait until what was taken is answered.

        Raises:
            TimeoutError: Some is still unanswered after `timeout_s` seconds.
        """
        self._drained = asyncio.Event()
        async with asyncio.timeout(timeout_s):
            if self.pending:
                await self._drained.wait()


class Batcher:
    """Serves the lanes that have work, in turn.

    A lane that has work is lined up once: for the threads, or for the event loop. The loop computes
    what is known to take a moment, where a second thread would be of no use, see `Overlap`.

    Args:
        threads: Batches computed at the same time beside the event loop.
        loop: Where results are delivered.
    """

    def __init__(self, threads: int, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._overlap = Overlap(time.monotonic_ns(), time.process_time_ns())
        # Lanes in whose queue work waits and that have their model.
        self._ready: deque[Lane] = deque()
        self._lock = threading.Lock()
        self._work_arrived = threading.Condition(self._lock)
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._compute, name=f"compute-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, lane: Lane, work: Work) -> None:
        """Queue work; `work.finish` is called later on the event loop.

        Raises:
            LeptonError: The queue refuses it, or the lane is closed.
        """
        if lane.closed:
            raise UnavailableError(f"model {lane.label} is being unloaded", hint="try again")
        with self._lock:
            was_idle = not lane.queue.waiting
            lane.queue.admit(work, work.arrived_ns)
            if lane.model is not None:
                if was_idle:
                    self._line_up(lane)
                elif lane.queue.delay_ns:  # what came may be what a batch waits for
                    self._work_arrived.notify()
        lane.pending += 1
        lane.used_ns = work.arrived_ns
        if lane.model is None:
            lane.wake(lane)

    def resume(self, lane: Lane) -> None:
        """Compute what waited while a lane was without its model."""
        with self._lock:
            if lane.queue.waiting:
                self._line_up(lane)

    def refuse_late(self, lane: Lane) -> None:
        """Answer those whose deadline passes while a lane is without its model."""
        with self._lock:
            late, left = lane.queue.take_late(time.monotonic_ns())
        _finish_batch(lane, Batch([], late, left), [], BatchTimes(0, 0, 0), time.monotonic_ns())

    def refuse_all(self, lane: Lane, error: LeptonError) -> None:
        """Answer all that waits in a lane whose model cannot be loaded."""
        with self._lock:
            refused = lane.queue.take_all()
        lane.finish(len(refused))
        now_ns = time.monotonic_ns()
        for work in refused:
            lane.statistics.failure.add(now_ns - work.arrived_ns)
            _finish(lane, work, error)

    def stop(self) -> None:
        """End the threads after the batches they are at; blocks until then."""
        with self._lock:
            self._stopped = True
            self._work_arrived.notify_all()
        for thread in self._threads:
            thread.join()

    def _line_up(self, lane: Lane) -> None:
        """Have a lane's work computed. On the event loop, with the lock held."""
        alone = lane.uniform and not self._overlap.pays
        rows = lane.queue.rows_within(_LONGEST_ON_LOOP_NS) if alone else 0
        if rows:
            self._loop.call_soon(self._compute_on_loop, lane, rows)
        else:
            self._ready.append(lane)
            self._work_arrived.notify()

    def _compute_on_loop(self, lane: Lane, rows: int) -> None:
        with self._lock:
            batch = lane.queue.take(time.monotonic_ns(), rows)
            if lane.queue.waiting:
                self._line_up(lane)
        self._deliver(lane, batch, *compute(lane.model, lane.label, batch.works))

    def _compute(self) -> None:
        while (taken := self._take()) is not None:
            lane, batch = taken
            outcomes, times = compute(lane.model, lane.label, batch.works)
            self._loop.call_soon_threadsafe(self._deliver, lane, batch, outcomes, times)

    def _deliver(self, lane: Lane, batch: Batch, outcomes: Outcomes, times: BatchTimes) -> None:
        now_ns = time.monotonic_ns()
        self._overlap.observe(now_ns, len(batch.works), time.process_time_ns)
        _finish_batch(lane, batch, outcomes, times, now_ns)

    def _take(self) -> tuple[Lane, Batch] | None:
        with self._lock:
            while True:
                now_ns = time.monotonic_ns()
                lane, due_ns = self._next_lane(now_ns)
                if lane is not None:
                    break
                if self._stopped and not self._ready:
                    return None
                self._work_arrived.wait((due_ns - now_ns) / 1e9 if due_ns else None)
            batch = lane.queue.take(now_ns)
            if lane.queue.waiting:
                self._ready.append(lane)
                if len(self._threads) > 1:
                    self._work_arrived.notify()
            return lane, batch

    def _next_lane(self, now_ns: int) -> tuple[Lane | None, int]:
        """The lane in turn; else None, and when the first of those that wait is due."""
        first_due_ns = 0
        for _ in range(len(self._ready)):
            lane = self._ready.popleft()
            due_ns = lane.queue.due_ns()
            if due_ns <= now_ns:
                return lane, 0
            self._ready.append(lane)
            first_due_ns = min(first_due_ns or due_ns, due_ns)
        return None, first_due_ns


def _stay_asleep(lane: Lane) -> None:
    raise InternalError(f"model {lane.label} sleeps for ever")


def _finish_batch(
    lane: Lane, batch: Batch, outcomes: Outcomes, times: BatchTimes, now_ns: int
) -> None:
    statistics = lane.statistics
    lane.finish(batch.left)
    if batch.works:
        rows = sum(work.rows for work in batch.works)
        computing_ns = times.input_ns + times.infer_ns + times.output_ns
        lane.queue.observe(computing_ns, rows)
        statistics.record_batch(len(batch.works), rows, times)
        arrived_ns = sum(work.arrived_ns for work in batch.works)
        waited_ns = (now_ns - computing_ns) * len(batch.works) - arrived_ns
        statistics.queue.add(waited_ns, len(batch.works))
    for work, outcome in zip(batch.works, outcomes, strict=True):
        ended = statistics.failure if isinstance(outcome, LeptonError) else statistics.success
        ended.add(now_ns - work.arrived_ns)
        _finish(lane, work, outcome)
    for work in batch.late:
        statistics.failure.add(now_ns - work.arrived_ns)
        work.finish(DeadlineExceededError("the timeout passed while the request waited"))


def _finish(lane: Lane, work: Work, outcome: Outcome) -> None:
    """Finish one work so that a defect in its answer is not one of the others' answers."""
    try:
        work.finish(outcome)
    except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
        _log.exception("an answer of model %s could not be made", lane.label)
        work.finish(InternalError("the answer could not be made"))
