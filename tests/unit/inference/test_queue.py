"""What a queue admits, and what makes the next batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_ai.errors import DeadlineExceededError, ResourceExhaustedError
from lepton_worker.inference.queue import DEFAULT_PRIORITY, RequestQueue, Work, next_batch


@dataclass
class StubCaller:
    gone: bool = False


def work(rows: int = 1, **fields: Any) -> Work:
    defaults: dict[str, Any] = {
        "arrays": [],
        "rows": rows,
        "key": (),
        "priority": DEFAULT_PRIORITY,
        "arrived_ns": 0,
        "deadline_ns": 0,
        "caller": StubCaller(),
        "finish": lambda outcome: None,
    }
    return Work(**{**defaults, **fields})


@given(st.lists(st.integers(1, 8), max_size=30), st.integers(8, 16))
def test_batches_take_all_work_in_order_within_the_limit(sizes: list[int], limit: int) -> None:
    waiting = [work(size) for size in sizes]
    queue = RequestQueue(limit, capacity=100)
    for item in waiting:
        queue.admit(item, 0)
    taken: list[Work] = []
    while queue.waiting:
        batch = queue.take(0)
        assert 0 < sum(item.rows for item in batch.works) <= limit
        taken += batch.works
    assert all(left is right for left, right in zip(taken, waiting, strict=True))


def test_a_batch_is_full_before_it_ends() -> None:
    batch = next_batch([work(3), work(4), work(2)], 0, 8)
    assert [item.rows for item in batch.works] == [3, 4]


def test_work_of_another_shape_waits_for_its_own_batch() -> None:
    batch = next_batch([work(key="a"), work(key="a"), work(key="b"), work(key="a")], 0, 8)
    assert [item.key for item in batch.works] == ["a", "a"]


def test_without_batching_each_goes_alone() -> None:
    assert len(next_batch([work(), work()], 0, 0).works) == 1


def test_what_is_too_late_is_not_computed() -> None:
    late, in_time = work(deadline_ns=99), work(deadline_ns=100)
    batch = next_batch([late, in_time, work()], now_ns=100, max_batch_size=8)
    assert batch.late == [late]
    assert len(batch.works) == 2
    assert batch.left == 3


def test_nothing_is_computed_for_who_has_gone() -> None:
    batch = next_batch([work(caller=StubCaller(gone=True)), work(rows=2)], 0, 8)
    assert [item.rows for item in batch.works] == [2]
    assert (batch.late, batch.left) == ([], 2)


def test_urgent_work_goes_first_and_equals_keep_their_order() -> None:
    queue = RequestQueue(8, capacity=10)
    for priority, arrived_ns in ((10, 1), (1, 2), (10, 3), (1, 4), (20, 5), (10, 6)):
        queue.admit(work(priority=priority, arrived_ns=arrived_ns), 0)
    assert [item.arrived_ns for item in queue.take(0).works] == [2, 4, 1, 3, 6, 5]


def test_a_full_queue_refuses() -> None:
    queue = RequestQueue(8, capacity=2)
    queue.admit(work(), 0)
    queue.admit(work(), 0)
    with pytest.raises(ResourceExhaustedError, match="2 requests wait"):
        queue.admit(work(), 0)
    assert len(queue.waiting) == 2


def test_a_deadline_before_the_expected_answer_is_refused_at_once() -> None:
    queue = RequestQueue(1, capacity=10)
    for _ in range(100):
        queue.observe(1000, 1)
    queue.admit(work(), 0)
    queue.admit(work(), 0)
    assert queue.wait_ns() == pytest.approx(2000, rel=0.01)
    with pytest.raises(DeadlineExceededError):
        queue.admit(work(deadline_ns=1500), 0)
    queue.admit(work(deadline_ns=2500), 0)


def test_an_idle_model_tries_whatever_it_expects() -> None:
    queue = RequestQueue(1, capacity=10)
    queue.observe(10**12, 1)
    queue.admit(work(deadline_ns=100), 0)
    assert len(queue.take(50).works) == 1


@pytest.mark.parametrize(
    ("sizes", "preferred", "taken"),
    [
        ([1] * 7, {4}, 4),
        ([1] * 7, {2, 4}, 4),
        ([1] * 9, {4, 8}, 8),
        ([1] * 3, {4}, 3),
        ([3, 3, 3], {4}, 2),
        ([3, 1, 3], {4}, 2),
    ],
)
def test_batches_end_at_the_largest_preferred_size_they_reach(
    sizes: list[int], preferred: set[int], taken: int
) -> None:
    queue = RequestQueue(8, 100, frozenset(preferred))
    for size in sizes:
        queue.admit(work(size), 0)
    assert len(queue.take(0).works) == taken
    assert queue.rows == sum(sizes[taken:])


def test_what_leaves_with_a_batch_that_was_cut_is_counted() -> None:
    waiting = [work(deadline_ns=1), work(2), work(deadline_ns=1), work(1)]
    batch = next_batch(waiting, now_ns=5, max_batch_size=8, preferred={2})
    assert (batch.works, batch.late, batch.left) == ([waiting[1]], [waiting[0], waiting[2]], 3)


def delayed(limit_ns: int = 1000) -> RequestQueue:
    return RequestQueue(8, capacity=100, max_delay_ns=limit_ns)


def test_who_comes_alone_never_waits() -> None:
    queue = delayed()
    for now_ns in (0, 10, 20):
        queue.admit(work(arrived_ns=now_ns), now_ns)
        assert queue.due_ns() == 0
        queue.take(now_ns)


def test_a_batch_waits_as_long_as_it_was_of_use_before() -> None:
    queue = delayed()
    for arrived_ns in (0, 100):
        queue.admit(work(arrived_ns=arrived_ns), arrived_ns)
    queue.take(100)
    queue.admit(work(arrived_ns=300), 300)
    assert queue.due_ns() == 500
    for arrived_ns in (310, 2310):
        queue.admit(work(arrived_ns=arrived_ns), arrived_ns)
    queue.take(2310)
    queue.admit(work(arrived_ns=3000), 3000)
    assert queue.due_ns() == 4000  # the limit
    queue.take(4000)
    queue.admit(work(arrived_ns=5000), 5000)
    assert queue.due_ns() == 0  # it had been alone


def test_a_full_batch_and_a_near_deadline_end_the_wait() -> None:
    queue = delayed()
    queue.delay_ns = 1000
    queue.observe(500, 1)  # a batch is expected to take 100
    queue.admit(work(arrived_ns=0), 0)
    queue.admit(work(arrived_ns=0, deadline_ns=700), 0)
    assert queue.due_ns() == 600
    queue.admit(work(6), 0)
    assert queue.due_ns() == 0


def test_a_full_queue_says_when_to_come_back() -> None:
    queue = RequestQueue(2, capacity=2)
    queue.expected_ns = 3_000_000_000
    for _ in range(2):
        queue.admit(work(rows=2), 0)
    with pytest.raises(ResourceExhaustedError) as caught:
        queue.check_room()
    assert caught.value.retry_after_s == 6.0


def test_nobody_knows_how_large_a_quick_batch_is_before_the_first() -> None:
    queue = RequestQueue(64, capacity=100)
    queue.admit(work(), 0)
    assert queue.rows_within(1_000_000) == 0
    queue.observe(100_000, rows=2)
    assert queue.rows_within(1_000_000) == 20


def test_a_row_costs_what_it_cost_of_late() -> None:
    queue = RequestQueue(64, capacity=100)
    queue.admit(work(), 0)
    queue.observe(1_000_000, rows=1)
    assert queue.rows_within(5_000_000) == 0  # five would hardly be a batch
    for _ in range(100):
        queue.observe(1_000_000, rows=10)
    assert queue.rows_within(5_000_000) == pytest.approx(50, abs=1)


def test_a_request_that_takes_longer_makes_no_quick_batch() -> None:
    queue = RequestQueue(64, capacity=100)
    queue.observe(100_000, rows=1)
    queue.admit(work(rows=40), 0)
    assert queue.rows_within(3_900_000) == 0
    assert queue.rows_within(4_000_000) == 40


def test_a_quick_batch_takes_no_more_than_it_may() -> None:
    queue = RequestQueue(64, capacity=100)
    for _ in range(30):
        queue.admit(work(), 0)
    assert len(queue.take(0, at_most=20).works) == 20
    assert len(queue.take(0, at_most=20).works) == 10


def test_no_quick_batch_where_batches_wait_for_more() -> None:
    queue = RequestQueue(64, capacity=100, max_delay_ns=1)
    queue.observe(100, rows=1)
    queue.admit(work(), 0)
    assert queue.rows_within(1_000_000) == 0
