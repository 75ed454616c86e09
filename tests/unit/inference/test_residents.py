"""Which models are in memory, with stand-ins whose loading a test holds up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton_ai.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    LeptonError,
    ResourceExhaustedError,
)
from lepton_worker.inference.batcher import Batcher, Lane
from lepton_worker.inference.model import Servable
from lepton_worker.inference.queue import Outcome, RequestQueue, Work
from lepton_worker.inference.residents import Residents, least_recently_used
from lepton_worker.inference.signature import Signature

TIMEOUT_S = 10.0


class Doubler:
    signature = Signature((), (), 8)
    uniform = True

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        return [arrays[0] * 2]


class StubFile:
    """Loads a model of some size once its gate is open."""

    def __init__(self, size_bytes: int) -> None:
        self.expected_bytes = size_bytes
        self.gate = asyncio.Event()
        self.gate.set()
        self.loads = 0
        self.error: LeptonError | None = None

    async def load(self) -> Doubler:
        self.loads += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Doubler(self.expected_bytes)

    def close(self) -> None:
        pass


class StubCaller:
    gone = False


class Stage:
    """A batcher, and models that may take 100 bytes together."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.residents = Residents(batcher, limit_bytes=100)

    async def load(self, file: StubFile) -> Lane:
        def make_lane(model: Servable) -> Lane:
            return Lane("m:1", model, RequestQueue(8, capacity=100), file)

        return await self.residents.load(file, make_lane)

    def ask(self, lane: Lane, deadline_ns: int = 0) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        now_ns = time.monotonic_ns()
        rows = np.array([[1.0]])
        self.batcher.submit(
            lane, Work([rows], 1, (), 10, now_ns, deadline_ns, StubCaller(), future.set_result)
        )
        return future


def run(scenario: Callable[[Stage], Any]) -> None:
    async def body() -> None:
        batcher = Batcher(1, asyncio.get_running_loop())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await scenario(Stage(batcher))
        finally:
            batcher.stop()

    asyncio.run(body())


def test_the_least_recently_used_sleeps_and_wakes_when_asked() -> None:
    async def scenario(stage: Stage) -> None:
        files = [StubFile(40) for _ in range(3)]
        first, second = [await stage.load(file) for file in files[:2]]
        await stage.ask(first)
        third = await stage.load(files[2])
        assert [lane.model is None for lane in (first, second, third)] == [False, True, False]
        assert stage.residents.used_bytes == 80
        assert (await stage.ask(second))[0].tolist() == [[2.0]]
        assert (first.model, second.loads) == (None, 1)
        assert stage.residents.used_bytes == 80

    run(scenario)


def test_many_who_ask_share_one_load_and_hold_nobody_up() -> None:
    async def scenario(stage: Stage) -> None:
        hot_file, cold_file = StubFile(40), StubFile(40)
        cold, hot = await stage.load(cold_file), await stage.load(hot_file)
        cold.used_ns = 0
        await stage.load(StubFile(60))
        assert cold.model is None
        assert hot.model is not None
        cold_file.gate.clear()
        waiting = [stage.ask(cold) for _ in range(5)]
        await stage.ask(hot)
        assert not any(future.done() for future in waiting)
        cold_file.gate.set()
        await asyncio.gather(*waiting)
        assert cold_file.loads == 2
        assert cold.statistics.batches == 1

    run(scenario)


def test_who_cannot_wait_for_the_load_is_told_in_time() -> None:
    async def scenario(stage: Stage) -> None:
        file = StubFile(60)
        lane = await stage.load(file)
        await stage.load(StubFile(60))
        file.gate.clear()
        patient = stage.ask(lane)
        hasty = await stage.ask(lane, deadline_ns=time.monotonic_ns() + 1_000_000)
        assert isinstance(hasty, DeadlineExceededError)
        assert not patient.done()
        file.gate.set()
        await patient

    run(scenario)


def test_a_failed_load_answers_all_and_may_be_tried_again() -> None:
    async def scenario(stage: Stage) -> None:
        file = StubFile(60)
        lane = await stage.load(file)
        await stage.load(StubFile(60))
        file.error = InvalidArgumentError("spoilt")
        answers = await asyncio.gather(stage.ask(lane), stage.ask(lane))
        assert answers == [file.error] * 2
        assert lane.pending == 0
        file.error = None
        assert not isinstance(await stage.ask(lane), LeptonError)

    run(scenario)


def test_a_model_in_use_stays_until_its_answers_are_given() -> None:
    async def scenario(stage: Stage) -> None:
        lane = await stage.load(StubFile(60))
        lane.pending += 1
        loading = asyncio.create_task(stage.load(StubFile(60)))
        await asyncio.sleep(0)
        assert lane.model is not None
        lane.finish(1)
        await loading
        assert lane.model is None

    run(scenario)


def test_a_model_beyond_the_limit_is_refused_with_both_sizes() -> None:
    async def scenario(stage: Stage) -> None:
        with pytest.raises(ResourceExhaustedError, match=r"101 bytes of memory.*100"):
            await stage.load(StubFile(101))

    run(scenario)


def test_released_models_take_no_room() -> None:
    async def scenario(stage: Stage) -> None:
        lane = await stage.load(StubFile(60))
        stage.residents.release(lane)
        assert stage.residents.used_bytes == 0

    run(scenario)


def test_nobody_sleeps_who_is_waited_for() -> None:
    lanes = [Lane("m:1", Doubler(1), RequestQueue(8, capacity=1)) for _ in range(3)]
    for used_ns, lane in enumerate(lanes):
        lane.used_ns = used_ns
    lanes[0].pending = 1
    assert least_recently_used(lanes) is lanes[1]
    assert least_recently_used(lanes[:1]) is None
