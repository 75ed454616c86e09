"""A job's trainers as processes, without agents: what they tell, and what comes of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
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


class Kind(NamedTuple):
    """What a job trains, and how: a model that tells three classes apart."""

    input_shape: tuple[int, ...] = (8,)
    hidden: tuple[Any, ...] = ()
    epochs: int = 60
    shards: int = 1

    def config(self) -> dict[str, Any]:
        output = ("dense", {"units": 3, "activation": "softmax"})
        model = Sequential(self.input_shape, [*self.hidden, output])
        model.compile(
            optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return model.to_config()


WHOLE = Kind()


class Job:
    """A job's processes, ended at the end of a test."""

    def __init__(self, folder: Path, trainers: Trainers, kind: Kind) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2_000, *kind.input_shape)).astype(np.float32)
        flat = x.reshape(len(x), -1)
        y = (flat @ rng.normal(size=(flat.shape[1], 3))).argmax(axis=1)
        self.data = folder / "train.safetensors"
        save_file({"x": x, "y": y}, str(self.data))
        self.folder = folder
        self.kind = kind
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
            "config": json.dumps(self.kind.config()),
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
            "epochs": self.kind.epochs,
            "batch_size": 64,
            "validation_fraction": 0.0,
            "seed": 3,
            "shuffle": True,
            "shards": self.kind.shards,
            "threads": 1,
            "gpus": [],
        }


@contextlib.asynccontextmanager
async def running(folder: Path, kind: Kind = WHOLE) -> AsyncGenerator[Job]:
    async with kept_trainers() as trainers:
        job = Job(folder, trainers, kind)
        async with asyncio.TaskGroup() as job.tasks, job.children:
            yield job


async def undisturbed_result(folder: Path, kind: Kind = WHOLE) -> Result:
    """The result of a run by one rank that nobody disturbs."""
    async with running(folder, kind) as job:
        _, lighthouse = await job.lighthouse()
        trainer = await job.warm()
        await job.give(trainer, 0, lighthouse)
        await trainer.until_told("trained")
        return await job.result(trainer)


async def result_with_another_lighthouse(folder: Path, kind: Kind = WHOLE) -> Result:
    """The result of two ranks whose lighthouse dies while they train."""
    async with running(folder, kind) as job:
        old, lighthouse = await job.lighthouse()
        ranks = await job.ranks(lighthouse)
        await ranks[0].until(together)
        await old.kill()
        _, moved = await job.lighthouse()
        for rank in ranks:
            await rank.child.tell({"op": "move_lighthouse", "address": moved})
        await asyncio.gather(*(rank.until_told("trained") for rank in ranks))
        result = await job.result(ranks[0])
        assert_same(result, await job.result(ranks[1]))
        return result


def together(event: dict[str, Any]) -> bool:
    return event["event"] == "progress" and event["participants"] == 2


def assert_same(one: Result, other: Result) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        np.testing.assert_array_equal(value, other.weights[name])


def assert_close(one: Result, other: Result) -> None:
    """Sums of floats in another order: close, not equal. No batch was measured twice or in part."""
    for name, value in other.weights.items():
        np.testing.assert_allclose(one.weights[name], value, atol=2e-3)
    for epoch, expected in zip(one.epochs, other.epochs, strict=True):
        assert epoch == pytest.approx(expected, abs=1e-3)
