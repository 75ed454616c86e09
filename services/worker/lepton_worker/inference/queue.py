"""The queue of one model: what is admitted, and what makes the next batch. No threads, no clock."""

from __future__ import annotations

import sys
from bisect import insort
from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from lepton_ai.errors import DeadlineExceededError, LeptonError, ResourceExhaustedError

# Requests that name no priority stand between the urgent levels (1 to 9) and the patient ones.
DEFAULT_PRIORITY = 10

# How much the newest batch counts in the expected duration of the next.
_NEWEST_WEIGHT = 0.2

# How long a batch waits, in times that the requests of the one before took to come together.
_PATIENCE = 2

# Below this a batch is hardly cheaper for being larger.
_ENOUGH_ROWS = 16


class Caller(Protocol):
    """Who waits for an answer."""

    @property
    def gone(self) -> bool:
        """Whether they stopped to wait."""
        ...


Outcome = list[NDArray[Any]] | LeptonError


@dataclass(slots=True)
class Work:
    """A request that fits its model.

    Attributes:
        arrays: The inputs, in the model's order.
        rows: Rows it brings to a batch.
        key: Work shares a batch only with work of an equal key (the shapes without the rows).
        priority: 1 is most urgent.
        arrived_ns: When it arrived, on the monotonic clock.
        deadline_ns: When its answer is of no use any more; 0 for never.
        caller: Who waits.
        finish: Called once, on the event loop, with the model's outputs for these rows or with
            what went wrong.
    """

    arrays: list[NDArray[Any]]
    rows: int
    key: Hashable
    priority: int
    arrived_ns: int
    deadline_ns: int
    caller: Caller
    finish: Callable[[Outcome], None]


class Batch(NamedTuple):
    """What leaves a queue together.

    Attributes:
        works: To be computed, in order.
        late: To be refused: their deadline has passed.
        left: How many works left the queue, with those nobody waits for any more.
    """

    works: list[Work]
    late: list[Work]
    left: int


def next_batch(
    waiting: Sequence[Work], now_ns: int, max_batch_size: int, preferred: Container[int] = ()
) -> Batch:
    """Decide what to compute next: whatever has arrived, in order, up to the batch limit.

    Args:
        waiting: Most urgent first.
        now_ns: The time.
        max_batch_size: Rows at most; 0 lets every work go alone.
        preferred: Rows after which a batch ends if it reaches them, the most of these.
    """
    works: list[Work] = []
    late: list[Work] = []
    rows = left = 0
    # What the batch was when it had a preferred number of rows.
    best: tuple[int, int, int] | None = None
    for count, work in enumerate(waiting, 1):
        if work.deadline_ns and work.deadline_ns < now_ns:
            late.append(work)
        elif not work.caller.gone:
            if works and (rows + work.rows > max_batch_size or work.key != works[0].key):
                break
            works.append(work)
            rows += work.rows
        left = count
        if rows in preferred:
            best = (len(works), len(late), left)
    if best is not None:
        count, late_count, left = best
        return Batch(works[:count], late[:late_count], left)
    return Batch(works, late, left)


@dataclass(slots=True)
class RequestQueue:
    """Requests of one model that wait for a batch.

    Attributes:
        max_batch_size: Rows in a batch at most; 0 for a model without batching.
        capacity: Requests that may wait.
        preferred_sizes: Rows after which a batch ends if it reaches them.
        max_delay_ns: How long a batch may wait for more requests.
        expected_ns: How long a batch takes, a moving average.
        row_ns: What a row of a batch takes of that, a moving average; 0 as long as nobody knows.
        delay_ns: How long the next batch waits: as far as it is of use, see `due_ns`.
        waiting: Most urgent first, in order of arrival within a priority.
        rows: Rows of all that waits.
    """

    max_batch_size: int
    capacity: int
    preferred_sizes: frozenset[int] = frozenset()
    max_delay_ns: int = 0
    expected_ns: int = 0
    row_ns: int = 0
    delay_ns: int = 0
    waiting: list[Work] = field(default_factory=list[Work])
    rows: int = 0

    def admit(self, work: Work, now_ns: int) -> None:
        """Queue a request, or refuse it early.

        Raises:
            ResourceExhaustedError: As many requests wait as may.
            DeadlineExceededError: The batches before it will take longer than it can wait.
        """
        waiting = self.waiting
        self.check_room()
        if work.deadline_ns and now_ns + self.wait_ns() > work.deadline_ns:
            raise DeadlineExceededError(
                "the answer would come after the request's timeout",
                hint=f"about {self.wait_ns() // 1000} microseconds are needed now",
            )
        if not waiting or waiting[-1].priority <= work.priority:
            waiting.append(work)
        else:
            insort(waiting, work, key=_priority)
        self.rows += work.rows

    def check_room(self) -> None:
        """Raise `ResourceExhaustedError` if as many requests wait as may."""
        if len(self.waiting) >= self.capacity:
            error = ResourceExhaustedError(
                f"{self.capacity} requests wait for this model already", hint="try again later"
            )
            error.retry_after_s = self.wait_ns() / 1e9
            raise error

    def due_ns(self) -> int:
        """When the next batch begins; 0 for at once.

        It waits twice as long as the requests of the batch before took to come together, up to the
        limit: where they come one by one it does not wait at all, and where none came late it does
        not wait in vain. It does not wait beyond what a deadline leaves, nor once it is full.
        """
        if not self.delay_ns:
            return 0
        waiting = self.waiting
        if self.rows >= max(self.preferred_sizes, default=self.max_batch_size):
            return 0
        deadlines_ns = [work.deadline_ns - self.expected_ns for work in waiting if work.deadline_ns]
        return min([min(work.arrived_ns for work in waiting) + self.delay_ns, *deadlines_ns])

    def rows_within(self, limit_ns: int) -> int:
        """How large a batch may be to be computed within a time.

        Nothing if nobody knows, if the first that waits takes longer, if batches that small would
        cost more than larger ones, or if batches are to wait for more.
        """
        if not self.row_ns or self.max_delay_ns:
            return 0
        rows = limit_ns // self.row_ns
        return rows if rows >= max(_ENOUGH_ROWS, self.waiting[0].rows) else 0

    def take(self, now_ns: int, at_most: int = sys.maxsize) -> Batch:
        """Remove and return what leaves the queue now.

        Args:
            now_ns: The time.
            at_most: Rows to take, where that is less than a batch may have.
        """
        limit = min(self.max_batch_size, at_most)
        batch = next_batch(self.waiting, now_ns, limit, self.preferred_sizes)
        self.rows -= sum(work.rows for work in self.waiting[: batch.left])
        del self.waiting[: batch.left]
        if self.max_delay_ns and batch.works:
            arrivals_ns = [work.arrived_ns for work in batch.works]
            together_ns = max(arrivals_ns) - min(arrivals_ns)
            self.delay_ns = min(self.max_delay_ns, _PATIENCE * together_ns)
        return batch

    def take_late(self, now_ns: int) -> tuple[list[Work], int]:
        """Remove what nobody will wait for: works that are late, and how many left in all."""
        late = [work for work in self.waiting if work.deadline_ns and work.deadline_ns < now_ns]
        kept = [
            work
            for work in self.waiting
            if not work.caller.gone and not (work.deadline_ns and work.deadline_ns < now_ns)
        ]
        left = len(self.waiting) - len(kept)
        self.waiting[:] = kept
        self.rows = sum(work.rows for work in kept)
        return late, left

    def take_all(self) -> list[Work]:
        """Remove everything."""
        taken, self.waiting, self.rows = self.waiting, [], 0
        return taken

    def observe(self, duration_ns: int, rows: int) -> None:
        """Learn how long a batch took."""
        self.expected_ns += round((duration_ns - self.expected_ns) * _NEWEST_WEIGHT)
        row_ns = duration_ns // rows
        known_ns = self.row_ns or row_ns
        self.row_ns = known_ns + round((row_ns - known_ns) * _NEWEST_WEIGHT)

    def wait_ns(self) -> int:
        """How long what waits already will take to be answered, as far as is known.

        Nothing when nothing waits: an idle model tries even what looks hopeless, or one slow batch
        would make it refuse for ever and never learn that it is fast again.
        """
        return -(-self.rows // max(self.max_batch_size, 1)) * self.expected_ns


def _priority(work: Work) -> int:
    return work.priority
