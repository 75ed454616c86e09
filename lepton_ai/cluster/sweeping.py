"""Runs a sweep: a job for each trial and rung, a few at a time, until nothing is left to try.

All that a sweep knows is in its jobs. Each has an idempotency key made of the sweep's name and of
what it runs: the same sweep started again takes up the jobs it had, ended or not.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lepton_ai.errors import ConflictError, InvalidArgumentError
from lepton_ai.proto.v1 import job_pb2
from lepton_ai.sweeps import Plan, Run, Value, best, next_runs

__all__ = ["SweepResult", "Sweeper", "Trial", "arguments_of", "score_of", "with_values"]

Submit = Callable[[dict[str, Value], str], Awaitable[job_pb2.Job]]
"""Submits the job of some parameters under an idempotency key."""


class Trial(NamedTuple):
    """A trial on a rung that has ended.

    Attributes:
        parameters: What was tried.
        score: How good it was; None where its job failed.
        job_id: Its job.
    """

    parameters: dict[str, Value]
    score: float | None
    job_id: str


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        best: The best trial of those that were given most.
        trials: All that ended, in the order in which they did.
    """

    best: Trial
    trials: Sequence[Trial]


class Sweeper:
    """Drives one sweep.

    Args:
        plan: What to try.
        submit: Makes a job of a trial.
        until_ended: Waits for a job's end.
        known_keys: Tells the idempotency keys of all jobs that there are.
        metric: What tells how good a trial is.
        name: Of the sweep.
        tell: Told each trial that ends.
    """

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        plan: Plan,
        submit: Submit,
        until_ended: Callable[[str], Awaitable[job_pb2.Job]],
        known_keys: Callable[[], Awaitable[set[str]]],
        metric: str,
        name: str,
        tell: Callable[[Trial], None],
    ) -> None:
        self._plan = plan
        self._submit = submit
        self._until_ended = until_ended
        self._known_keys = known_keys
        self._metric = metric
        self._name = name
        self._tell = tell
        self._runs: dict[tuple[int, int], Run] = {}
        self._ended: dict[tuple[int, int], Trial] = {}

    async def run(self, parallel: int) -> SweepResult:
        """Run to the end, with so many jobs at a time.

        Raises:
            InvalidArgumentError: Jobs do not tell the metric.
            ConflictError: Every trial failed.
        """
        begin = await self._former()
        waiting: set[asyncio.Task[None]] = set()
        try:
            while True:
                free = max(0, parallel - len(waiting) - len(begin))
                begin += next_runs(self._plan, list(self._runs.values()), free)
                for run in begin:
                    self._runs[run.trial, run.rung] = run
                    waiting.add(asyncio.create_task(self._one(run)))
                begin = []
                if not waiting:
                    return self._result()
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _former(self) -> list[Run]:
        """What this sweep ran before: it counts before anything else is chosen."""
        known = await self._known_keys()
        every = itertools.product(range(len(self._plan.trials)), range(self._plan.height))
        runs = [Run(trial, rung) for trial, rung in every]
        former = [run for run in runs if self._key(run) in known]
        for run in former:
            self._runs[run.trial, run.rung] = run
        return former

    def _key(self, run: Run) -> str:
        parameters = self._plan.parameters(run.trial, run.rung)
        content = json.dumps([parameters, run.trial, run.rung], sort_keys=True)
        return f"{self._name}-{hashlib.blake2b(content.encode(), digest_size=10).hexdigest()}"

    async def _one(self, run: Run) -> None:
        parameters = self._plan.parameters(run.trial, run.rung)
        submitted = await self._submit(parameters, self._key(run))
        job = await self._until_ended(submitted.id)
        at = run.trial, run.rung
        self._runs[at] = Run(*at, ended=True, score=score_of(job, self._metric))
        self._ended[at] = Trial(parameters, self._runs[at].score, job.id)
        self._tell(self._ended[at])

    def _result(self) -> SweepResult:
        found = best(self._plan, list(self._runs.values()))
        if found is None:
            last = next(reversed(self._ended.values()), None)
            raise ConflictError(
                "every trial failed", hint=f"see 'lepton job show {last.job_id}'" if last else ""
            )
        return SweepResult(self._ended[found.trial, found.rung], list(self._ended.values()))


def score_of(job: job_pb2.Job, metric: str) -> float | None:
    """How good the result of a job is; None where it has none.

    Raises:
        InvalidArgumentError: It ended well, but tells no such metric; says which it tells.
    """
    if job.state != job_pb2.JOB_STATE_SUCCEEDED:
        return None
    told: dict[str, float] = dict(job.result.metrics)
    if job.result.history:
        told |= json.loads(job.result.history)["epochs"][-1]
    if metric not in told:
        raise InvalidArgumentError(
            f"job {job.id} tells no metric {metric!r}",
            hint=f"it tells: {', '.join(sorted(told)) or 'none; write metrics.json'}",
        )
    return told[metric]


def with_values(form: dict[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """A copy of a model's configuration with other values at some places.

    Args:
        form: As `Model.to_config` makes it.
        values: By place, such as ``"objective.optimizer.learning_rate"`` or ``"layers.0.units"``.

    Raises:
        InvalidArgumentError: There is no such place; says what is there.
    """
    changed = json.loads(json.dumps(form))
    for place, value in values.items():
        *outer, last = place.split(".")
        at: Any = changed
        for step in outer:
            at = _inside(at, step, place)
        options = _options(at, last)
        if not isinstance(options, dict):
            raise InvalidArgumentError(f"{place!r} is no option of the model")
        options[last] = value  # one that it does not know is refused with the model
    return changed


def arguments_of(values: Mapping[str, Value]) -> list[str]:
    """Parameters as a command line, such as ``--lr 0.1``."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def _inside(at: Any, step: str, place: str) -> Any:
    options = _options(at, step)
    try:
        return options[int(step) if isinstance(options, list) else step]
    except (KeyError, IndexError, ValueError, TypeError):
        known = options if isinstance(options, dict) else range(len(options))
        raise InvalidArgumentError(
            f"the model has no {place!r}", hint=f"there is: {', '.join(map(str, known))}"
        ) from None


def _options(at: Any, step: str) -> Any:
    """Of a pair of a name and options, as layers and optimizers are, the options."""
    pair = isinstance(at, list) and len(at) == 2 and isinstance(at[1], dict)
    return at[1] if pair and not step.isdigit() else at
