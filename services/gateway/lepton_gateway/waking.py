"""Requests for models that sleep: held until a replica answers, then sent on through Envoy."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lepton_ai.errors import DeadlineExceededError, ResourceExhaustedError, UnavailableError
from lepton_gateway.requests import Headers, Request
from lepton_gateway.table import RoutedDeployment, RouteTable
from lepton_runtime.clock import Clock

__all__ = ["WOKEN_HEADER", "Response", "Waking"]

# Marks a request that was held already: it is not held again.
WOKEN_HEADER = "lepton-woken"
_POLL_S = 0.05
# Between tries while Envoy makes the acquaintance of the first replica.
_RETRY_S = 0.1
_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "server", "date"})
_UNREACHABLE = 503


class Response(NamedTuple):
    """As it goes back."""

    status: int
    headers: Headers
    body: bytes


@dataclass
class Waking:
    """Holds requests.

    Args:
        table: Answers the table of the moment.
        envoy: The socket on which Envoy takes requests from this gateway.
        clock: Measures how long they wait.
        patience_s: How long one waits at most.
        capacity: How many may wait at once.
        tell: Called when somebody begins to wait.
    """

    table: Callable[[], RouteTable]
    envoy: Path
    clock: Clock
    patience_s: float
    capacity: int
    tell: Callable[[], None]
    waiting: Counter[str] = field(default_factory=Counter[str])

    def is_asleep(self, name: str) -> bool:
        """Whether a deployment has no replica, but would have one if it were asked."""
        return any(one.name == name and one.sleeps and not one.weights for one in self._found())

    async def answer(self, name: str, request: Request) -> Response:
        """The answer of the model that a request wakes.

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
            return await self._answer(name, request, deadline)
        finally:
            self.waiting[name] -= 1
            if not self.waiting[name]:
                del self.waiting[name]

    async def _answer(self, name: str, request: Request, deadline: float) -> Response:
        while self.clock.monotonic() < deadline:
            if not any(one.name == name and one.weights for one in self._found()):
                await self.clock.sleep(_POLL_S)
                continue
            response = await asyncio.to_thread(self._send, request, deadline)
            if response.status != _UNREACHABLE:
                return response
            await self.clock.sleep(_RETRY_S)
        raise DeadlineExceededError(
            f"model {name!r} was asleep and did not wake within {self.patience_s:g} s",
            hint="see 'lepton deployments'",
        )

    def _found(self) -> Iterable[RoutedDeployment]:
        return self.table().deployments

    def _send(self, request: Request, deadline: float) -> Response:
        """Send a request through Envoy, as its client would have a moment later."""
        timeout_s = max(deadline - self.clock.monotonic(), _RETRY_S)
        connection = _UnixConnection(self.envoy, timeout_s)
        headers = dict(_forwarded(request.headers)) | {WOKEN_HEADER: "1"}
        try:
            connection.request(request.method, request.target, request.body, headers)
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            raise UnavailableError("Envoy does not answer") from error
        finally:
            connection.close()
        return Response(response.status, _forwarded(response.getheaders()), body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("lepton", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _forwarded(headers: Headers) -> Headers:
    named = ((name.lower(), value) for name, value in headers)
    return [(name, value) for name, value in named if name not in _HOP_BY_HOP]
