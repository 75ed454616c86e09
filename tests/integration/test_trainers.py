"""Trainers and a lighthouse as processes: ranks die, join and lose their lighthouse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from lepton_ai import Sequential
from lepton_ai.learn.files import read_model
from lepton_ai.learn.history import History
from lepton_worker.child import Child, start_child
from lepton_worker.trainers import Trainers
from tests.support.trainers import kept_trainers

HOST = "127.0.0.1"
WAIT_S = 120
EPOCHS = 60


class Result(NamedTuple):
    """Weights, and loss and metrics by epoch."""

    weights: dict[str, np.ndarray]
    epochs: list[dict[str, float]]


class Trainer:
    """A trainer, and what it has told so far."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.events: list[dict[str, Any]] = []
        self.printed: list[str] = []
        self._news = asyncio.Condition()

    async def listen(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_prints())
            async for event in self.child.events():
                async with self._news:
                    self.events.append(event)
                    self._news.notify_all()

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event, past ones included, that is `wanted`."""
        try:
            async with asyncio.timeout(WAIT_S), self._news:
                await self._news.wait_for(lambda: any(wanted(e) for e in self.events))
        except TimeoutError:
            raise AssertionError(self.events[-3:] + self.printed[-20:]) from None
        return next(e for e in self.events if wanted(e))

    async def until_told(self, name: str) -> dict[str, Any]:
        return await self.until(lambda event: event["event"] == name)

    async def _keep_prints(self) -> None:
        async for line in self.child.printed():
            self.printed.append(line)


class Job:
    """A job's processes, ended at the end of a test."""

    def __init__(self, folder: Path, trainers: Trainers) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2_000, 8)).astype(np.float32)
        y = (x @ rng.normal(size=(8, 3))).argmax(axis=1)
        self.data = folder / "train.safetensors"
        save_file({"x": x, "y": y}, str(self.data))
        self.folder = folder
        model = Sequential((8,), [("dense", {"units": 3, "activation": "softmax"})])
        model.compile(
            optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        self.config = model.to_config()
        self.trainers = trainers
        self.children = contextlib.AsyncExitStack()
        self.tasks: asyncio.TaskGroup

    async def lighthouse(self) -> tuple[Child, str]:
        child = await start_child("lepton_worker.lighthouse", ["1", HOST])
        self.children.push_async_callback(child.kill)
        event = await anext(child.events())
        return child, f"http://{HOST}:{event['port']}"

    async def warm(self) -> Trainer:
        trainer = Trainer(await self.children.enter_async_context(self.trainers.one()))
        self.tasks.create_task(trainer.listen())
        return trainer

    async def give(
        self,
        trainer: Trainer,
        rank: int,
        lighthouse: str,
        attempt: int = 1,
        checkpoint: str = "",
    ) -> None:
        await trainer.child.tell(self._work(rank, lighthouse, attempt, checkpoint))

    async def ranks(self, lighthouse: str) -> list[Trainer]:
        trainers = [await self.warm() for _ in range(2)]
        for rank, trainer in enumerate(trainers):
            await self.give(trainer, rank, lighthouse)
        return trainers

    async def result(self, trainer: Trainer) -> Result:
        """Let a trained rank write its model; what it wrote."""
        await trainer.child.tell({"op": "publish", "onnx": False})
        event = await trainer.until_told("published")
        tensors = read_model(event["weights"]).tensors
        history = History.from_dict(json.loads(event["history"]))
        return Result({k: v.numpy() for k, v in tensors.items()}, history.epochs)

    def _work(self, rank: int, lighthouse: str, attempt: int, checkpoint: str) -> dict[str, Any]:
        return {
            "config": json.dumps(self.config),
            "training": str(self.data),
            "training_bytes": 0,
            "window_bytes": 0,
            "validation": "",
            "weights": "",
            "checkpoint": checkpoint,
            "checkpoint_interval_s": 0.2,
            "checkpoint_every_steps": 0,
            "folder": str(self.folder / f"r{rank}-{attempt}"),
            "bind": HOST,
            "host": HOST,
            "work": "rank",
            "lighthouse": lighthouse,
            "replica": f"j-r{rank}-{attempt}",
            "rank": rank,
            "replaces": attempt > 1,
            "min_ranks": 1,
            "epochs": EPOCHS,
            "batch_size": 64,
            "validation_fraction": 0.0,
            "seed": 3,
            "shuffle": True,
            "threads": 1,
            "gpus": [],
        }


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Job]:
    async with kept_trainers() as trainers:
        job = Job(folder, trainers)
        async with asyncio.TaskGroup() as job.tasks, job.children:
            yield job


def _together(event: dict[str, Any]) -> bool:
    return event["event"] == "progress" and event["participants"] == 2


def _assert_same(one: Result, other: Result) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        np.testing.assert_array_equal(value, other.weights[name])


def _assert_close(one: Result, other: Result) -> None:
    """Sums of floats in another order: close, not equal. No batch was measured twice or in part."""
    for name, value in other.weights.items():
        np.testing.assert_allclose(one.weights[name], value, atol=2e-3)
    for epoch, expected in zip(one.epochs, other.epochs, strict=True):
        assert epoch == pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The result of a run by one rank that nobody disturbs."""

    async def train() -> Result:
        async with running(tmp_path_factory.mktemp("undisturbed")) as job:
            _, lighthouse = await job.lighthouse()
            trainer = await job.warm()
            await job.give(trainer, 0, lighthouse)
            await trainer.until_told("trained")
            return await job.result(trainer)

    return asyncio.run(train())


def test_a_killed_rank_is_replaced_and_the_result_is_the_undisturbed_one(
    tmp_path: Path, undisturbed: Result
) -> None:
    async def train() -> None:
        async with running(tmp_path) as job:
            _, lighthouse = await job.lighthouse()
            third = await job.warm()
            first, second = await job.ranks(lighthouse)
            await first.until(_together)
            await second.child.kill()
            await first.until(lambda e: e["event"] == "progress" and e["participants"] == 1)
            seen = len(first.events)
            await job.give(third, 1, lighthouse, attempt=2)
            await first.until(lambda e: e in first.events[seen:] and _together(e))
            await asyncio.gather(first.until_told("trained"), third.until_told("trained"))
            result = await job.result(first)
            _assert_same(result, await job.result(third))
            _assert_close(result, undisturbed)

    asyncio.run(train())


def test_a_rank_that_hangs_is_passed_over_and_catches_up(
    tmp_path: Path, undisturbed: Result
) -> None:
    async def train() -> None:
        async with running(tmp_path) as job:
            _, lighthouse = await job.lighthouse()
            first, second = await job.ranks(lighthouse)
            await first.until(_together)
            os.kill(second.child.pid, signal.SIGSTOP)
            async with asyncio.timeout(10):
                await first.until(lambda e: e["event"] == "progress" and e["participants"] == 1)
            seen = len(first.events)
            os.kill(second.child.pid, signal.SIGCONT)
            await first.until(lambda e: e in first.events[seen:] and _together(e))
            await asyncio.gather(first.until_told("trained"), second.until_told("trained"))
            result = await job.result(first)
            _assert_same(result, await job.result(second))
            _assert_close(result, undisturbed)

    asyncio.run(train())


def test_a_lost_lighthouse_costs_no_step(tmp_path: Path, undisturbed: Result) -> None:
    async def train() -> None:
        async with running(tmp_path) as job:
            old, lighthouse = await job.lighthouse()
            ranks = await job.ranks(lighthouse)
            await ranks[0].until(_together)
            await old.kill()
            _, moved = await job.lighthouse()
            for rank in ranks:
                await rank.child.tell({"op": "move_lighthouse", "address": moved})
            await asyncio.gather(*(rank.until_told("trained") for rank in ranks))
            result = await job.result(ranks[0])
            _assert_same(result, await job.result(ranks[1]))
            _assert_close(result, undisturbed)

    asyncio.run(train())


def test_who_replaces_another_waits_for_those_who_look_for_a_new_lighthouse(
    tmp_path: Path,
) -> None:
    async def train() -> None:
        async with running(tmp_path) as job:
            old, lighthouse = await job.lighthouse()
            first, second = await job.ranks(lighthouse)
            third = await job.warm()
            await first.until(_together)
            await second.child.kill()
            await old.kill()
            _, moved = await job.lighthouse()
            await job.give(third, 1, moved, attempt=2)
            await third.until_told("ready")
            known = max(e["step"] for e in first.events if e["event"] == "progress")
            await first.child.tell({"op": "move_lighthouse", "address": moved})
            assert (await third.until_told("progress"))["step"] > known

    asyncio.run(train())


def test_a_job_goes_on_from_a_checkpoint_after_the_loss_of_every_rank(
    tmp_path: Path, undisturbed: Result
) -> None:
    async def train() -> None:
        async with running(tmp_path) as job:
            _, lighthouse = await job.lighthouse()
            ranks = await job.ranks(lighthouse)
            written = await ranks[0].until_told("checkpoint")
            for rank in ranks:
                await rank.child.kill()
            _, lighthouse = await job.lighthouse()
            last = await job.warm()
            await job.give(last, 0, lighthouse, attempt=2, checkpoint=written["path"])
            first = await last.until_told("progress")
            assert first["step"] > written["step"] > 0
            await last.until_told("trained")
            _assert_close(await job.result(last), undisturbed)

    asyncio.run(train())
