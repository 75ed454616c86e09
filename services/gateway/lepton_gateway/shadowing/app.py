"""Takes what Envoy mirrors, and counts how often two versions say the same."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from lepton_ai.errors import LeptonError, ResourceExhaustedError, UnavailableError
from lepton_ai.http import HttpAnswer
from lepton_gateway.requests import Receive, Request, Scope, Send, read_request
from lepton_gateway.shadowing.asking import asked_model, read_outputs
from lepton_gateway.shadowing.comparison import Agreement, compared, row_count
from lepton_gateway.table import RouteTable, Shadow
from lepton_runtime.clock import Clock

__all__ = ["Ask", "Shadowing", "Tally"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.shadowing")
# While somebody has too much to do, Envoy drops what would be mirrored beyond those that wait here.
_PAUSE_S = 1.0
_BUSY = (ResourceExhaustedError, UnavailableError)

Ask = Callable[[Request, int], Awaitable[HttpAnswer]]
"""Asks a version what was mirrored."""


@dataclass
class Tally:
    """What came of the requests that were mirrored to a version.

    Attributes:
        rows: Rows of the answers that it was compared with.
        agreed: Those of them that agree.
        unanswered: Those of them that it did not answer.
        dropped: Requests that were not compared.
    """

    rows: int = 0
    agreed: int = 0
    unanswered: int = 0
    dropped: int = 0


class Shadowing:
    """An ASGI application whose answers nobody gets.

    Both versions are asked once more: what the client is answered passes here neither before nor
    after. Envoy bounds how many requests are here at once.

    Args:
        table: Answers the table of the moment.
        ask: Asks a version.
        clock: Time.
    """

    def __init__(self, table: Callable[[], RouteTable], ask: Ask, clock: Clock) -> None:
        self._table = table
        self._ask = ask
        self._clock = clock
        self._tallies: defaultdict[tuple[str, int], Tally] = defaultdict(Tally)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compare, then say that it is done."""
        try:
            request = await read_request(scope, receive)
            name = asked_model(request)
            shadow = self._table().shadow_of(name)
            if shadow is not None:
                await self._compare(request, shadow, self._tallies[name, shadow.version])
        except Exception:  # noqa: BLE001 - a defect here is nobody's answer
            _log.exception("not_compared")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def take(self) -> Mapping[tuple[str, int], Tally]:
        """What was counted since the last time, by deployment and version."""
        taken, self._tallies = self._tallies, defaultdict(Tally)
        return taken

    async def _compare(self, request: Request, shadow: Shadow, tally: Tally) -> None:
        try:
            old = await self._ask(request, shadow.beside)
        except _BUSY:
            await self._drop(tally)
            return
        except LeptonError:
            return  # there is nothing to compare with
        try:
            new = await self._ask(request, shadow.version)
        except _BUSY:
            await self._drop(tally)
            return
        except LeptonError:
            new = None
        found = await asyncio.to_thread(_agreement, old, new, shadow.tolerance)
        tally.rows += found.rows
        tally.agreed += found.agreed
        tally.unanswered += found.rows if new is None else 0

    async def _drop(self, tally: Tally) -> None:
        tally.dropped += 1
        await self._clock.sleep(_PAUSE_S)


def _agreement(old: HttpAnswer, new: HttpAnswer | None, tolerance: float) -> Agreement:
    outputs = read_outputs(old)
    if new is None:
        return Agreement(row_count(outputs), 0)
    return compared(outputs, read_outputs(new), tolerance)
