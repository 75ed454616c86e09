"""The threads that compute. Whatever has arrived while one was busy makes its next batch."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import (
    DeadlineExceededError,
    InternalError,
    LeptonError,
    UnavailableError,
)
from lepton_worker.inference.cache import AnswerCache
from lepton_worker.inference.model import Servable
from lepton_worker.inference.queue import Batch, Outcome, RequestQueue, Work
from lepton_worker.inference.statistics import BatchTimes, ModelStatistics

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
    """Compute threads and the lanes that have work, served in turn.

    Args:
        threads: Batches computed at the same time.
        loop: Where results are delivered.
    """

    def __init__(self, threads: int, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Exactly the lanes in whose queue work waits and that have their model.
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
                    self._ready.append(lane)
                if was_idle or lane.queue.delay_ns:  # what came may be what a batch waits for
                    self._work_arrived.notify()
        lane.pending += 1
        lane.used_ns = work.arrived_ns
        if lane.model is None:
            lane.wake(lane)

    def resume(self, lane: Lane) -> None:
        """Compute what waited while a lane was without its model."""
        with self._lock:
            if lane.queue.waiting:
                self._ready.append(lane)
                self._work_arrived.notify()

    def refuse_late(self, lane: Lane) -> None:
        """Answer those whose deadline passes while a lane is without its model."""
        with self._lock:
            late, left = lane.queue.take_late(time.monotonic_ns())
        _deliver(lane, Batch([], late, left), [], BatchTimes(0, 0, 0))

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

    def _compute(self) -> None:
        while (taken := self._take()) is not None:
            lane, batch = taken
            outcomes, times = _run(lane, batch.works)
            self._loop.call_soon_threadsafe(_deliver, lane, batch, outcomes, times)

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


Outcomes = list[Outcome]


def _run(lane: Lane, works: list[Work]) -> tuple[Outcomes, BatchTimes]:
    """Compute a batch; where it fails, each of its works alone, so that one spoils only its own."""
    started_ns = time.monotonic_ns()
    outcomes: Outcomes
    try:
        return _run_together(lane, works, started_ns)
    except Exception as error:  # noqa: BLE001 - whatever a model raises becomes its caller's answer
        if len(works) > 1:
            outcomes = [_run(lane, [work])[0][0] for work in works]
        else:
            outcomes = [_failure(lane, error)]
        return outcomes, BatchTimes(0, time.monotonic_ns() - started_ns, 0)


def _run_together(lane: Lane, works: list[Work], started_ns: int) -> tuple[Outcomes, BatchTimes]:
    if not works:
        return [], BatchTimes(0, 0, 0)
    assert lane.model is not None  # somebody waits, so it does not sleep
    arrays = [_join(parts) for parts in _columns(works)]
    stacked_ns = time.monotonic_ns()
    outputs = lane.model.run(arrays)
    computed_ns = time.monotonic_ns()
    outcomes = _split(works, outputs)
    return outcomes, BatchTimes(
        stacked_ns - started_ns, computed_ns - stacked_ns, time.monotonic_ns() - computed_ns
    )


def _columns(works: list[Work]) -> list[tuple[NDArray[Any], ...]]:
    return list(zip(*(work.arrays for work in works), strict=True))


def _join(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """A copy even of a single part: arrays on top of a received body may not be aligned.

    The bytes are joined, not the arrays: NumPy lets other threads run for every part it copies,
    and to have its turn again each time costs the batch milliseconds under load.
    """
    first = parts[0]
    if first.ndim == 0:
        return first.copy()
    if first.dtype.hasobject:
        return np.concatenate(parts)
    rows = sum(map(len, parts))
    return np.frombuffer(b"".join([part.data for part in parts]), first.dtype).reshape(
        rows, *first.shape[1:]
    )


def _split(works: list[Work], outputs: list[NDArray[Any]]) -> Outcomes:
    if len(works) == 1:
        return [outputs]
    outcomes: Outcomes = []
    start = 0
    for work in works:
        end = start + work.rows
        outcomes.append([output[start:end] for output in outputs])
        start = end
    return outcomes


def _failure(lane: Lane, error: Exception) -> LeptonError:
    if isinstance(error, LeptonError):
        return error
    _log.error("model %s failed: %s", lane.label, error)
    return InternalError(f"model {lane.label} failed on this request")


def _deliver(lane: Lane, batch: Batch, outcomes: Outcomes, times: BatchTimes) -> None:
    now_ns = time.monotonic_ns()
    statistics = lane.statistics
    lane.finish(batch.left)
    if batch.works:
        rows = sum(work.rows for work in batch.works)
        computing_ns = times.input_ns + times.infer_ns + times.output_ns
        lane.queue.observe(computing_ns)
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
