"""Learning-rate schedules: pure functions of the step, so that a rank that joins late agrees."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from typing_extensions import override

from lepton_ai.learn.declaration import checked, fraction, number, whole

__all__ = ["SCHEDULES", "Constant", "Cosine", "Exponential", "Linear", "Schedule", "Step"]


class Schedule(ABC):
    """What share of the optimizer's learning rate a step uses."""

    @abstractmethod
    def factor(self, step: int, total_steps: int) -> float:
        """The factor for `step`, counted from zero, of a run of `total_steps`."""


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same rate throughout."""

    @override
    def factor(self, step: int, total_steps: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from one to `floor` (Loshchilov and Hutter, 2017), after a linear warm-up.

    Args:
        warmup: Share of the run that the rate takes to rise from zero.
        floor: Factor at the end.

    Example:
        >>> [round(Cosine().factor(step, 4), 2) for step in range(4)]
        [1.0, 0.85, 0.5, 0.15]
    """

    warmup: float = field(default=0.0, metadata=checked(fraction))
    floor: float = field(default=0.0, metadata=checked(fraction))

    @override
    def factor(self, step: int, total_steps: int) -> float:
        warmup_steps = int(self.warmup * total_steps)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """A straight line from one to `floor`.

    Args:
        floor: Factor at the end.
    """

    floor: float = field(default=0.0, metadata=checked(fraction))

    @override
    def factor(self, step: int, total_steps: int) -> float:
        return 1 - (1 - self.floor) * min(1.0, step / max(1, total_steps))


@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Multiplied by `rate` every `steps` steps, smoothly.

    Args:
        rate: Factor over `steps` steps.
        steps: Length of one decay, in steps.
    """

    rate: float = field(default=0.96, metadata=checked(number(above=0)))
    steps: int = field(default=1000, metadata=checked(whole(1)))

    @override
    def factor(self, step: int, total_steps: int) -> float:
        return self.rate ** (step / self.steps)


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """Multiplied by `rate` at every `steps`-th step.

    Args:
        rate: Factor at each drop.
        steps: Steps between drops.
    """

    rate: float = field(default=0.1, metadata=checked(number(above=0)))
    steps: int = field(default=1000, metadata=checked(whole(1)))

    @override
    def factor(self, step: int, total_steps: int) -> float:
        return self.rate ** (step // self.steps)


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "linear": Linear,
    "exponential": Exponential,
    "step": Step,
}
