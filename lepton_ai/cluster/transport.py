"""Inference over HTTP/1.1 on connections that stay open."""

from __future__ import annotations

import http.client
import queue
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from lepton_ai.cluster.profile import Profile
from lepton_ai.errors import (
    DeadlineExceededError,
    LeptonError,
    UnavailableError,
    error_from_http,
)

__all__ = ["HttpAnswer", "HttpPool", "error_of_answer"]

_KEPT = 64


class _Request(NamedTuple):
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    timeout_s: float


class HttpAnswer(NamedTuple):
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpPool:
    """Connections to one server; each thread that asks takes a free one or opens one.

    Args:
        profile: Which server, and the key that is sent with every request.
    """

    def __init__(self, profile: Profile) -> None:
        self._address = profile.address
        self._authorization = f"Bearer {profile.api_key}"
        self._tls = profile.tls
        self._free: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue(_KEPT)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> HttpAnswer:
        """The successful answer to one request; blocks. Inference may safely be sent again.

        Raises:
            LeptonError: What the server answered instead, or that it cannot be reached.
        """
        try:
            answer = self._sent(_Request(method, path, body, headers or {}, timeout_s))
        except TimeoutError:
            raise DeadlineExceededError(f"no answer within {timeout_s:g} s") from None
        except ssl.SSLError:
            raise UnavailableError(
                f"{self._address} has no certificate of the cluster that is asked for",
                hint="is LEPTON_AUTHORITY, or client.json, that of this cluster?",
            ) from None
        except (OSError, http.client.HTTPException):
            raise UnavailableError(
                f"{self._address} does not answer", hint="is the cluster up? see 'lepton status'"
            ) from None
        if answer.status >= 400:
            raise error_of_answer(answer)
        return answer

    def close(self) -> None:
        """Close what is open and not in use."""
        while True:
            try:
                self._free.get_nowait().close()
            except queue.Empty:
                return

    def _sent(self, request: _Request) -> HttpAnswer:
        try:
            connection = self._free.get_nowait()
        except queue.Empty:
            return self._exchange(self._open(), request)
        try:
            return self._exchange(connection, request)
        except (http.client.RemoteDisconnected, ConnectionError):
            # The server closed it while it lay idle.
            return self._exchange(self._open(), request)

    def _open(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._address, context=self._tls)
        return http.client.HTTPConnection(self._address)

    def _exchange(self, connection: http.client.HTTPConnection, request: _Request) -> HttpAnswer:
        try:
            connection.timeout = request.timeout_s
            if connection.sock is not None:  # pyright: ignore[reportUnnecessaryComparison]
                connection.sock.settimeout(request.timeout_s)
            headers = {"authorization": self._authorization, **request.headers}
            connection.request(request.method, request.path, request.body, headers)
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            answer = HttpAnswer(response.status, received, response.read())
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return answer

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        try:
            self._free.put_nowait(connection)
        except queue.Full:
            connection.close()


def error_of_answer(answer: HttpAnswer) -> LeptonError:
    """The error that an answer of 400 or more tells of."""
    try:
        message = str(orjson.loads(answer.body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = f"the server answered {answer.status}"
    return error_from_http(answer.status, message)
