"""The job of a drill: what it trains, how far it is, and whether its result is the right one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors

from lepton_ai.errors import DeadlineExceededError
from lepton_ai.learn.kinds import Sequential
from lepton_ai.proto.v1 import job_pb2
from lepton_runtime import keys
from lepton_runtime.bus import Bus, job_progress
from lepton_runtime.cancellation import end
from lepton_runtime.drills.lab import Lab, until

__all__ = [
    "DATASET",
    "RANKS",
    "STEPS_PER_EPOCH",
    "Result",
    "Run",
    "data",
    "following",
    "job_spec",
    "result_of",
]

DATASET = "drill"
RANKS = 2
STEPS_PER_EPOCH = 32
_BATCH, _FEATURES, _CLASSES, _SEED = 256, 64, 10, 7
# Ranks that come and go change the order in which floats are added up, and nothing else.
_WEIGHTS_APART = 2e-3
_LOSS_APART = 0.01
_SIDE_BY_SIDE_S = 0.2
# On a machine that is busy with other things as well.
_END_S = 600.0
_ENDED = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)


def data() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows that a linear model can learn, so that runs differ by rounding alone."""
    random = np.random.default_rng(_SEED)
    x = random.normal(size=(_BATCH * STEPS_PER_EPOCH, _FEATURES)).astype(np.float32)
    return x, (x @ random.normal(size=(_FEATURES, _CLASSES))).argmax(axis=1)


def job_spec(epochs: int, cpus: float, publish_as: str = "") -> job_pb2.JobSpec:
    """A job that one rank or two train, each of which claims so many `cpus`."""
    model = Sequential((_FEATURES,), [("dense", {"units": _CLASSES, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return job_pb2.JobSpec(
        workers={"min": 1, "max": RANKS},
        resources={"cpus": cpus},
        train=job_pb2.TrainSpec(
            dataset=DATASET,
            model_config=json.dumps(model.to_config()),
            epochs=epochs,
            batch_size=_BATCH,
            seed=_SEED,
            checkpoint_interval_s=1,
            publish_as=publish_as,
        ),
    )


@dataclass(frozen=True)
class Result:
    """What a job left behind."""

    weights: dict[str, NDArray[np.float32]]
    loss: float

    def differs_from(self, undisturbed: Result) -> list[str]:
        """What is not as in a run that nobody disturbed, for people."""
        found: list[str] = []
        apart = max(
            float(np.abs(self.weights[name] - value).max())
            for name, value in undisturbed.weights.items()
        )
        if apart > _WEIGHTS_APART:
            found.append(f"final weights are {apart:.2g} off those of the undisturbed run")
        if abs(self.loss - undisturbed.loss) > _LOSS_APART * undisturbed.loss:
            found.append(f"the loss is {self.loss:.4g}, undisturbed {undisturbed.loss:.4g}")
        return found


class Run:
    """One job, and what its ranks have told of their steps so far."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.told: list[job_pb2.JobProgress] = []
        self._news = asyncio.Condition()

    @property
    def step(self) -> int:
        """The furthest step that was told."""
        return max((progress.step for progress in self.told), default=0)

    async def listen(self, bus: Bus) -> None:
        """Hear the ranks until cancelled."""
        async for message in bus.subscribe_all(job_progress(self.job_id)):
            async with self._news:
                self.told.append(job_pb2.JobProgress.FromString(message.payload))
                self._news.notify_all()

    async def until(
        self, wanted: Callable[[job_pb2.JobProgress], bool], what: str, timeout_s: float = 60.0
    ) -> job_pb2.JobProgress:
        """The first progress told that is `wanted`.

        Raises:
            DeadlineExceededError: There is none in time; says `what` was waited for.
        """
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: any(map(wanted, self.told)))
        except TimeoutError:
            raise DeadlineExceededError(f"no {what} within {timeout_s:g} s") from None
        return next(filter(wanted, self.told))

    async def trained_by(self, ranks: int, since: float = 0.0) -> float:
        """When so many ranks took a step, after `since`; seconds since the epoch."""
        progress = await self.until(
            lambda p: p.participants == ranks and told_at(p) > since, f"step of {ranks} ranks"
        )
        return told_at(progress)

    def steps_lost(self) -> int:
        """Steps that were taken once more: how far any step is behind one told before it.

        Ranks tell of the same steps side by side, so that what is as good as at the same time is
        no step back.
        """
        return max(
            (
                other.step - progress.step
                for number, progress in enumerate(self.told)
                for other in self.told[:number]
                if told_at(other) < told_at(progress) - _SIDE_BY_SIDE_S
            ),
            default=0,
        )


def told_at(progress: job_pb2.JobProgress) -> float:
    """When a rank took a step, in seconds since the epoch."""
    return progress.at.ToNanoseconds() / 1e9


@contextlib.asynccontextmanager
async def following(lab: Lab, job_id: str) -> AsyncGenerator[Run]:
    """The progress of a job, for as long as this block lasts."""
    run = Run(job_id)
    listening = asyncio.create_task(run.listen(lab.bus))
    try:
        yield run
    finally:
        await end(listening)


async def result_of(lab: Lab, job_id: str) -> Result:
    """Wait for the end of a job, by its record.

    Raises:
        DeadlineExceededError: It does not end in time, or not well; says why.
    """
    job = job_pb2.Job()

    async def ended() -> bool:
        record = await lab.state.get(keys.job(job_id))
        job.ParseFromString(record.value if record else b"")
        return job.state in _ENDED

    await until(ended, f"job {job_id} has ended", _END_S)
    if job.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise DeadlineExceededError(f"job {job_id} did not succeed: {job.reason}")
    weights = load_tensors(bytes(await lab.objects.get_bytes(job.result.weights_object)))
    history = json.loads(job.result.history)
    return Result(weights, float(history["epochs"][-1]["loss"]))
