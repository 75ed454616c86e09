"""Sends on over HTTP what was held, through Envoy, as its client would have a moment later."""

from __future__ import annotations

import asyncio
import http.client
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lepton_ai.errors import UnavailableError
from lepton_gateway.requests import Headers, Request
from lepton_gateway.waking import WOKEN_HEADER

__all__ = ["Resender", "Response"]

_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "server", "date"})
_UNREACHABLE = 503


class Response(NamedTuple):
    """As it goes back."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Resender:
    """Asks Envoy.

    Args:
        envoy: The socket on which it takes requests from this gateway.
    """

    envoy: Path

    async def send(self, request: Request, timeout_s: float) -> Response | None:
        """The answer; None where no replica could be reached.

        Raises:
            UnavailableError: Envoy does not answer.
        """
        response = await asyncio.to_thread(self._send, request, timeout_s)
        return None if response.status == _UNREACHABLE else response

    def _send(self, request: Request, timeout_s: float) -> Response:
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
