"""A drill, and one repeat of it: set up, hurt, measure, check."""

from __future__ import annotations

import asyncio
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import ClassVar

from lepton_ai.errors import LeptonError
from lepton_runtime.drills.lab import Layout
from lepton_runtime.drills.load import LEAST_PER_S, sent_to
from lepton_runtime.drills.stage import Stage, open_stage
from lepton_runtime.drills.training import data, following, result_of

__all__ = ["Drill", "Outcome", "perform", "repeated"]

# The fault comes so many seconds after the job has begun to train.
_EARLIEST_S, _LATEST_S = 0.5, 2.5


@dataclass
class Outcome:
    """What one repeat showed.

    Attributes:
        seconds: By figure, as `Drill.wanted` names them.
        counts: Further numbers, by name.
        broken: What had to hold and did not, for people.
    """

    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    broken: list[str] = field(default_factory=list[str])


class Drill(ABC):
    """One way to hurt a cluster.

    Attributes:
        name: On the command line.
        about: What is done, for people.
        wanted: The longest that is good enough, in seconds, by figure.
        lasts_s: How long its job trains when left alone.
        layout: The cluster that it needs.
        ranks: How many train before the fault.
        loses_steps: Whether going on from a checkpoint is as good as it gets.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    wanted: ClassVar[tuple[tuple[str, float], ...]]
    lasts_s: ClassVar[float] = 12.0
    layout: ClassVar[Layout] = Layout()
    ranks: ClassVar[int] = 2
    loses_steps: ClassVar[bool] = False

    @abstractmethod
    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Do it; answers the figures, in seconds."""


async def repeated(drill: Drill, repeats: int, seed: int) -> AsyncIterator[Outcome]:
    """Each repeat's outcome, on one cluster; moments and victims follow from the seed."""
    with tempfile.TemporaryDirectory(prefix="lepton-drill-") as home:
        try:
            async with open_stage(Path(home), drill.layout, drill.lasts_s) as stage:
                for number in range(repeats):
                    stage.random = Random(f"{drill.name} {seed} {number}")  # noqa: S311
                    yield await perform(drill, stage)
        except LeptonError as error:
            yield Outcome(broken=[f"the cluster did not start: {error}"])


async def perform(drill: Drill, stage: Stage) -> Outcome:
    """One repeat. What goes wrong is part of its outcome."""
    try:
        await stage.ready()
        return await _perform(drill, stage)
    except LeptonError as error:
        return Outcome(broken=[str(error)])


async def _perform(drill: Drill, stage: Stage) -> Outcome:
    written, lost = len(stage.ledger.broken), len(stage.ledger.lost)
    stage.expected = set()
    job_id = await stage.submit(stage.epochs)
    async with (
        sent_to(stage.endpoint, data()[0][0]) as stage.load,
        following(stage.lab, job_id) as stage.run,
    ):
        await stage.run.trained_by(drill.ranks)
        await asyncio.sleep(stage.random.uniform(_EARLIEST_S, _LATEST_S))
        seconds = await drill.hurt(stage)
        result = await result_of(stage.lab, job_id)
    outcome = Outcome(seconds)
    outcome.broken += result.differs_from(stage.undisturbed)
    outcome.broken += stage.ledger.broken[written:]
    died = {moment.name for moment in stage.ledger.lost[lost:]} - stage.expected
    outcome.counts = {
        "steps lost": max(0, stage.run.steps_lost()),
        "failed requests": len(stage.load.failures),
        "forbidden writes": len(stage.ledger.broken) - written,
        "nodes declared dead": len(died),
    }
    outcome.broken += _counted(drill, outcome.counts)
    if stage.load.per_s < LEAST_PER_S:
        outcome.broken.append(f"only {stage.load.per_s:.0f} requests/s were answered")
    return outcome


def _counted(drill: Drill, counts: Mapping[str, int]) -> list[str]:
    allowed = {"steps lost"} if drill.loses_steps else set[str]()
    return [f"{count} {name}" for name, count in counts.items() if count and name not in allowed]
