"""The compute threads: rows are never crossed, and one bad request spoils only itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton_ai.errors import DeadlineExceededError, InternalError, UnavailableError
from lepton_worker.inference.batcher import Batcher, Lane
from lepton_worker.inference.queue import Outcome, RequestQueue, Work
from lepton_worker.inference.signature import Signature

TIMEOUT_S = 10.0


class Doubler:
    """Doubles rows; fails on any batch with a negative number; can be held up."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: list[str] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    signature = Signature((), (), 8)
    size_bytes = 1
    uniform = True

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S)
        (x,) = arrays
        self.sizes.append(len(x))
        self.threads.append(threading.current_thread().name)
        if (x < 0).any():
            raise ValueError("negative")
        return [x * 2]


class StubCaller:
    gone = False


def submit(
    batcher: Batcher, lane: Lane, *values: float, deadline_ns: int = 0, arrived_ns: int = 1
) -> asyncio.Future[Outcome]:
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    rows = np.array([[value] for value in values])
    batcher.submit(
        lane,
        Work([rows], len(rows), (), 10, arrived_ns, deadline_ns, StubCaller(), future.set_result),
    )
    return future


def run(scenario: Any) -> None:
    """Run a scenario with a batcher of one thread and a lane on a `Doubler`."""

    async def body() -> None:
        model = Doubler()
        lane = Lane("m:1", model, RequestQueue(8, capacity=100))
        batcher = Batcher(1, asyncio.get_running_loop())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await scenario(batcher, lane, model)
        finally:
            model.gate.set()
            batcher.stop()

    asyncio.run(body())


def test_what_arrives_while_a_batch_is_computed_makes_the_next() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        model.gate.clear()
        first = submit(batcher, lane, 1.0)
        assert await asyncio.to_thread(model.entered.wait, TIMEOUT_S)
        others = [submit(batcher, lane, value, value + 0.5) for value in (2.0, 3.0, 4.0)]
        model.gate.set()
        answers = [await future for future in (first, *others)]
        assert [answer[0].ravel().tolist() for answer in answers] == [
            [2.0],
            [4.0, 5.0],
            [6.0, 7.0],
            [8.0, 9.0],
        ]
        assert model.sizes == [1, 6]
        assert lane.statistics.rows == 7
        assert lane.statistics.batches == 2
        assert lane.statistics.success.count == 4
        assert lane.pending == 0

    run(scenario)


def test_one_bad_request_fails_alone() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        model.gate.clear()
        submit(batcher, lane, 0.0)
        assert await asyncio.to_thread(model.entered.wait, TIMEOUT_S)
        good, bad, other = (submit(batcher, lane, value) for value in (1.0, -1.0, 2.0))
        model.gate.set()
        assert (await good)[0].tolist() == [[2.0]]
        assert (await other)[0].tolist() == [[4.0]]
        failure = await bad
        assert isinstance(failure, InternalError)
        assert "negative" not in str(failure)
        assert lane.statistics.failure.count == 1

    run(scenario)


def test_a_deadline_that_passes_in_the_queue_is_an_error() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        model.gate.clear()
        submit(batcher, lane, 1.0)
        assert await asyncio.to_thread(model.entered.wait, TIMEOUT_S)
        late = submit(batcher, lane, 2.0, deadline_ns=2)
        model.gate.set()
        assert isinstance(await late, DeadlineExceededError)
        assert lane.pending == 0

    run(scenario)


def test_a_closing_lane_answers_what_it_took_and_takes_no_more() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        model.gate.clear()
        taken = submit(batcher, lane, 1.0)
        closing = asyncio.create_task(lane.close(TIMEOUT_S))
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError):
            submit(batcher, lane, 2.0)
        assert not closing.done()
        model.gate.set()
        await closing
        assert taken.done()

    run(scenario)


def test_lanes_take_turns() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        quiet = Lane("quiet:1", model, RequestQueue(8, capacity=100))
        model.gate.clear()
        busy = [submit(batcher, lane, 1.0)]
        assert await asyncio.to_thread(model.entered.wait, TIMEOUT_S)
        busy += [submit(batcher, lane, *[1.0] * 8) for _ in range(5)]
        busy.append(submit(batcher, quiet, 1.0))
        model.gate.set()
        await asyncio.gather(*busy)
        assert model.sizes == [1, 8, 1, 8, 8, 8, 8]

    run(scenario)


def test_an_answer_that_cannot_be_made_spoils_no_other() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        outcomes: list[Outcome] = []

        def finish(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if len(outcomes) == 1:
                raise ValueError("no answer")

        model.gate.clear()
        submit(batcher, lane, 0.0)
        assert await asyncio.to_thread(model.entered.wait, TIMEOUT_S)
        rows = np.array([[1.0]])
        batcher.submit(lane, Work([rows], 1, (), 10, 1, 0, StubCaller(), finish))
        other = submit(batcher, lane, 2.0)
        model.gate.set()
        assert (await other)[0].tolist() == [[4.0]]
        assert isinstance(outcomes[1], InternalError)

    run(scenario)


def test_a_batch_waits_for_more_only_up_to_its_delay() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        lane.queue.max_delay_ns = 10**12
        lane.queue.delay_ns = 10**12
        waiting = [submit(batcher, lane, 1.0, 2.0, 3.0, arrived_ns=time.monotonic_ns())]
        assert not model.entered.wait(0.01)
        waiting.append(submit(batcher, lane, *[1.0] * 5))
        await asyncio.gather(*waiting)  # it was full
        assert model.sizes == [8]
        lane.queue.delay_ns = 5_000_000
        await submit(batcher, lane, 1.0, arrived_ns=time.monotonic_ns())
        assert model.sizes == [8, 1]

    run(scenario)


def test_a_waiting_batch_holds_no_other_model_up() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        lane.queue.max_delay_ns = lane.queue.delay_ns = 10**12
        patient = submit(batcher, lane, 1.0, arrived_ns=time.monotonic_ns())
        quick = Lane("quick:1", model, RequestQueue(8, capacity=100))
        assert (await submit(batcher, quick, 2.0))[0].tolist() == [[4.0]]
        assert not patient.done()
        submit(batcher, lane, *[1.0] * 7)
        await patient

    run(scenario)


def test_what_takes_a_moment_is_computed_on_the_loop() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        await submit(batcher, lane, 1.0)  # nobody knows yet how long it takes
        lane.queue.row_ns = 1000
        both = [submit(batcher, lane, value) for value in (2.0, 3.0)]
        assert [(await future)[0].tolist() for future in both] == [[[4.0]], [[6.0]]]
        lane.queue.row_ns = 1_000_000
        await submit(batcher, lane, 1.0)
        assert model.threads == ["compute-0", "MainThread", "compute-0"]
        assert model.sizes == [1, 2, 1]

    run(scenario)


def test_on_the_loop_more_than_a_batch_is_computed_in_turns() -> None:
    async def scenario(batcher: Batcher, lane: Lane, model: Doubler) -> None:
        other = Lane("other:1", model, RequestQueue(8, capacity=100))
        lane.queue.row_ns = other.queue.row_ns = 1000
        asked = [submit(batcher, lane, 1.0, 2.0, 3.0) for _ in range(4)]
        asked.append(submit(batcher, other, 1.0))
        await asyncio.gather(*asked)
        assert model.sizes == [6, 1, 6]
        assert set(model.threads) == {"MainThread"}
        assert (lane.pending, other.pending) == (0, 0)

    run(scenario)


def test_rows_that_take_longer_than_others_are_computed_beside_the_loop() -> None:
    async def scenario(batcher: Batcher, _lane: Lane, model: Doubler) -> None:
        model.uniform = False
        texts = Lane("texts:1", model, RequestQueue(8, capacity=100))
        texts.queue.row_ns = 1000
        await submit(batcher, texts, 1.0)
        assert model.threads == ["compute-0"]

    run(scenario)
