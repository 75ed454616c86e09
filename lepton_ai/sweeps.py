"""Searching for good parameters: what is tried, in which order, and what is given more.

Grid, random and ASHA (Li et al., 2020, "A System for Massively Parallel Hyperparameter Tuning") are
one decision here: trials begin on a lowest rung, and of what has ended on a rung the best part goes
on to the next, with more resource. Grid and random search have one rung.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lepton_ai.errors import InvalidArgumentError

__all__ = ["Plan", "Run", "Rungs", "Space", "Value", "best", "grid", "next_runs", "sampled"]

Value = str | int | float
Space = Mapping[str, Sequence[Value] | str]
"""By parameter: values to choose from, or a range as text: ``uniform:0:0.5``, ``log:1e-4:1e-1``
(even in the logarithm) or ``int:1:8`` (both ends count)."""

_RANGE = re.compile(r"(uniform|log|int):([^:]+):([^:]+)")
_MAX_TRIALS = 10_000


@dataclass(frozen=True)
class Rungs:
    """How much of a resource, such as epochs, trials are given.

    Args:
        parameter: The resource's name.
        least: What every trial is given.
        most: What the last ones get.
        factor: From rung to rung so much more resource, for so many times fewer trials.
    """

    parameter: str
    least: int
    most: int
    factor: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most or self.factor < 2:
            raise InvalidArgumentError(
                f"{self.least} to {self.most} by {self.factor} are no rungs",
                hint="1 <= least <= most, and a factor of 2 or more",
            )

    def resources(self) -> list[int]:
        """The resource of each rung, the lowest first.

        Example:
            >>> Rungs("epochs", 1, 10, 3).resources()
            [1, 3, 9, 10]
        """
        steps = [self.least]
        while steps[-1] < self.most:
            steps.append(min(self.most, steps[-1] * self.factor))
        return steps


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Args:
        trials: The parameters of each.
        rungs: What they are given; None for one rung.
        maximize: Whether more is better.
    """

    trials: Sequence[Mapping[str, Value]]
    rungs: Rungs | None = None
    maximize: bool = False

    @property
    def height(self) -> int:
        """How many rungs there are."""
        return len(self.rungs.resources()) if self.rungs else 1

    def parameters(self, trial: int, rung: int) -> dict[str, Value]:
        """The parameters of a trial on a rung."""
        given = dict(self.trials[trial])
        if self.rungs is not None:
            given[self.rungs.parameter] = self.rungs.resources()[rung]
        return given


@dataclass(frozen=True)
class Run:
    """A trial on a rung.

    Args:
        trial: Its number.
        rung: From 0.
        ended: Whether its job has.
        score: How good it is; None where it is not known, or the job failed.
    """

    trial: int
    rung: int
    ended: bool = False
    score: float | None = None


def grid(space: Space) -> list[dict[str, Value]]:
    """Every combination of values.

    Raises:
        InvalidArgumentError: There is a range, or there are too many.
    """
    for name, values in space.items():
        if isinstance(values, str):
            raise InvalidArgumentError(
                f"{name} is the range {values!r}", hint="name values, or search at random"
            )
    sizes = math.prod(len(values) for values in space.values())
    if not 1 <= sizes <= _MAX_TRIALS:
        raise InvalidArgumentError(f"{sizes} combinations", hint=f"from 1 to {_MAX_TRIALS}")
    products = itertools.product(*space.values())
    return [dict(zip(space, values, strict=True)) for values in products]


def sampled(space: Space, trials: int, seed: int) -> list[dict[str, Value]]:
    """So many combinations by chance; the same for the same seed.

    Raises:
        InvalidArgumentError: A range cannot be read, or there are too many trials.
    """
    if not 1 <= trials <= _MAX_TRIALS:
        raise InvalidArgumentError(f"{trials} trials", hint=f"from 1 to {_MAX_TRIALS}")
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    return [{name: _drawn(name, space[name], chance) for name in space} for _ in range(trials)]


def next_runs(plan: Plan, runs: Sequence[Run], free: int) -> list[Run]:
    """What to start now: who goes on to a higher rung first, then new trials.

    Args:
        plan: The sweep.
        runs: All that were started.
        free: How many may be started.
    """
    started = {(run.trial, run.rung) for run in runs}
    wanted: list[Run] = []
    factor = plan.rungs.factor if plan.rungs else 1
    for rung in reversed(range(plan.height - 1)):
        good = [run for run in _ranked(plan, runs) if run.rung == rung]
        ended = sum(run.ended and run.rung == rung for run in runs)
        promoted = good[: ended // factor]
        wanted += [Run(run.trial, rung + 1) for run in promoted]
    wanted += [Run(trial, 0) for trial in range(len(plan.trials))]
    return [run for run in wanted if (run.trial, run.rung) not in started][:free]


def best(plan: Plan, runs: Sequence[Run]) -> Run | None:
    """The best of those that were given most; None where none has a score."""
    ranked = _ranked(plan, runs)
    highest = max((run.rung for run in ranked), default=0)
    return next((run for run in ranked if run.rung == highest), None)


def _ranked(plan: Plan, runs: Sequence[Run]) -> list[Run]:
    """Runs with a score, the best first; of equals the earlier trial."""
    sign = -1 if plan.maximize else 1
    scored = [(sign * run.score, run.trial, run) for run in runs if run.score is not None]
    return [run for *_, run in sorted(scored, key=lambda entry: entry[:2])]


def _drawn(name: str, values: Sequence[Value] | str, chance: random.Random) -> Value:
    if not isinstance(values, str):
        return chance.choice(values)
    found = _RANGE.fullmatch(values)
    try:
        if found is None:
            raise ValueError
        low, high = float(found[2]), float(found[3])
        match found[1]:
            case "int":
                return chance.randint(int(low), int(high))
            case "log":
                return math.exp(chance.uniform(math.log(low), math.log(high)))
            case _:
                return chance.uniform(low, high)
    except ValueError:
        raise InvalidArgumentError(
            f"{name}={values!r} is no range",
            hint="such as uniform:0:0.5, log:1e-4:1e-1 or int:1:8",
        ) from None
