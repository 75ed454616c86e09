"""Requests for models that sleep: held until a replica answers, then sent on through Envoy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from lepton_ai.errors import DeadlineExceededError, ResourceExhaustedError
from lepton_gateway.table import RoutedDeployment, RouteTable
from lepton_runtime.clock import Clock

__all__ = ["WOKEN_HEADER", "Waking"]

# Marks a request that was held already: it is not held again.
WOKEN_HEADER = "lepton-woken"
_POLL_S = 0.05
# Between tries while Envoy makes the acquaintance of the first replica.
_RETRY_S = 0.1
_Answer = TypeVar("_Answer")


@dataclass
class Waking:
    """Holds requests.

    Args:
        table: Answers the table of the moment.
        clock: Measures how long they wait.
        patience_s: How long one waits at most.
        capacity: How many may wait at once.
        tell: Called when somebody begins to wait.
    """

    table: Callable[[], RouteTable]
    clock: Clock
    patience_s: float
    capacity: int
    tell: Callable[[], None]
    waiting: Counter[str] = field(default_factory=Counter[str])

    def is_asleep(self, name: str) -> bool:
        """Whether a deployment has no replica, but would have one if it were asked."""
        return any(one.name == name and one.sleeps and not one.weights for one in self._found())

    async def answer(self, name: str, ask: Callable[[float], Awaitable[_Answer | None]]) -> _Answer:
        """The answer of the model that a request wakes.

        Args:
            name: The model's.
            ask: Sends the request on, which may take so many seconds; its answer is None where no
                replica could be reached.

        Raises:
            ResourceExhaustedError: Too many wait already.
            DeadlineExceededError: It did not wake in time.
        """
        if self.waiting.total() >= self.capacity:
            raise ResourceExhaustedError("too many requests wait for sleeping models")
        deadline = self.clock.monotonic() + self.patience_s
        self.waiting[name] += 1
        try:
            self.tell()
            return await self._answer(name, ask, deadline)
        finally:
            self.waiting[name] -= 1
            if not self.waiting[name]:
                del self.waiting[name]

    async def _answer(
        self, name: str, ask: Callable[[float], Awaitable[_Answer | None]], deadline: float
    ) -> _Answer:
        while (left_s := deadline - self.clock.monotonic()) > 0:
            if not any(one.name == name and one.weights for one in self._found()):
                await self.clock.sleep(_POLL_S)
                continue
            answer = await ask(max(left_s, _RETRY_S))
            if answer is not None:
                return answer
            await self.clock.sleep(_RETRY_S)
        raise DeadlineExceededError(
            f"model {name!r} was asleep and did not wake within {self.patience_s:g} s",
            hint="see 'lepton deployments'",
        )

    def _found(self) -> Iterable[RoutedDeployment]:
        return self.table().deployments
