"""An HTTP/1.1 client: bodies go out and come in without being copied on the way.

It speaks to our own servers and to Envoy, which always tell how long an answer is.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, cast

import orjson

from lepton_ai.errors import (
    DeadlineExceededError,
    InternalError,
    LeptonError,
    UnavailableError,
    error_from_http,
)

__all__ = ["HttpAnswer", "HttpClient"]

_MAX_HEAD_BYTES = 64 * 1024
_END_OF_HEAD = b"\r\n\r\n"
_CONNECT_S = 5.0
_UNIX = "unix:"


class HttpAnswer(NamedTuple):
    """An answer as it came. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytearray


class HttpClient:
    """Requests to one server, on connections that stay open.

    Args:
        address: ``host:port``, or ``unix:PATH``.
        token: Sent as the bearer's key; empty where each request says its own.
        tls: What to show and trust; None for plain text.
        max_connections: Requests under way at once; further ones wait.
    """

    def __init__(
        self,
        address: str,
        token: str,
        tls: ssl.SSLContext | None = None,
        max_connections: int = 8,
    ) -> None:
        self.address = address
        self._tls = tls
        self._common = f"host: {'lepton' if address.startswith(_UNIX) else address}\r\n".encode()
        if token:
            self._common += f"authorization: Bearer {token}\r\n".encode()
        self._idle: deque[_Connection] = deque()
        self._slots = asyncio.Semaphore(max_connections)

    @property
    def busy(self) -> bool:
        """Whether another request would have to wait for a connection."""
        return self._slots.locked()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | bytearray | memoryview = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> HttpAnswer:
        """Send a request and wait for all of its answer.

        Raises:
            LeptonError: What the server answered with a status of 400 or more.
            UnavailableError: It cannot be reached, or broke off.
            DeadlineExceededError: It did not answer in time.
        """
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = b"%b %b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (
            method.encode(),
            path.encode(),
            self._common,
            extra.encode(),
            len(body),
        )
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                answer = await self._exchange(head, body)
        except TimeoutError:
            raise DeadlineExceededError(
                f"{self.address} did not answer within {timeout_s:g} s"
            ) from None
        if answer.status >= 400:
            raise _error(answer)
        return answer

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, head: bytes, body: bytes | bytearray | memoryview) -> HttpAnswer:
        while self._idle:
            connection = self._idle.pop()
            # The server may have closed it while it lay idle; then nothing was done.
            with contextlib.suppress(_NothingAnsweredError):
                return await self._carried(connection, head, body)
        try:
            return await self._carried(await self._open(), head, body)
        except _NothingAnsweredError:
            raise UnavailableError(f"{self.address} broke off") from None

    async def _carried(
        self, connection: _Connection, head: bytes, body: bytes | bytearray | memoryview
    ) -> HttpAnswer:
        try:
            answer = await connection.exchange(head, body)
        except BaseException:
            connection.close()
            raise
        if connection.is_open and answer.headers.get("connection") != "close":
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def _open(self) -> _Connection:
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await self._connected()
        except ssl.SSLCertVerificationError:
            raise UnavailableError(
                f"{self.address} has no certificate of the cluster that is asked for",
                hint="is LEPTON_AUTHORITY, or client.json, that of this cluster?",
            ) from None
        except (OSError, TimeoutError) as error:
            reason = str(error) or "no answer"
            raise UnavailableError(f"{self.address} cannot be reached: {reason}") from None

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self.address.startswith(_UNIX):
            path = self.address.removeprefix(_UNIX)
            return (await loop.create_unix_connection(_Connection, path))[1]
        host, _, port = self.address.rpartition(":")
        return (await loop.create_connection(_Connection, host, int(port), ssl=self._tls))[1]


class _NothingAnsweredError(Exception):
    """The connection ended before the first byte of an answer."""


class _Connection(asyncio.BufferedProtocol):
    """One exchange after the other. The body of an answer is received into its final place."""

    def __init__(self) -> None:
        self._transport = cast("asyncio.Transport", None)
        self._buffer = bytearray(_MAX_HEAD_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._head: tuple[int, dict[str, str]] | None = None
        self._body = bytearray()
        self._into = memoryview(self._body)
        self._received = 0
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self.is_open = False

    async def exchange(self, head: bytes, body: bytes | bytearray | memoryview) -> HttpAnswer:
        if not self.is_open:
            raise _NothingAnsweredError
        self._filled = self._received = 0
        self._head = None
        self._answer = asyncio.get_running_loop().create_future()
        if len(body) <= _MAX_HEAD_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return await self._answer

    def close(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        error = UnavailableError("the connection broke off") if self._filled else None
        self._fail(error or _NothingAnsweredError())

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._head is None:
            return self._view[self._filled :]
        return self._into[self._received :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._answer is None or self._answer.done():
            self._transport.abort()  # nothing was asked for
        elif self._head is None:
            self._filled += nbytes
            self._read_head()
        else:
            self._received += nbytes
            self._finish_when_whole()

    def _read_head(self) -> None:
        end = self._buffer.find(_END_OF_HEAD, 0, self._filled)
        if end < 0:
            if self._filled == len(self._buffer):
                self._refuse("its head is too long")
            return
        try:
            self._head = _parsed(bytes(self._view[:end]))
            length = int(self._head[1]["content-length"])
        except (ValueError, KeyError, IndexError):
            self._refuse("it is not HTTP/1.1 of a known length")
            return
        first = self._view[end + len(_END_OF_HEAD) : self._filled]
        self._body = bytearray(max(length, len(first)))
        self._into = memoryview(self._body)
        self._into[: len(first)] = first
        self._received = len(first)
        if self._received > length:
            self._refuse("it is longer than it said")
            return
        self._finish_when_whole()

    def _finish_when_whole(self) -> None:
        if self._received == len(self._body):
            assert self._head is not None
            assert self._answer is not None
            status, headers = self._head
            # Whatever comes now, such as the end of the connection, begins a new head.
            self._head, self._filled = None, 0
            self._answer.set_result(HttpAnswer(status, headers, self._body))
            self._body = bytearray()
            self._into = memoryview(self._body)

    def _refuse(self, reason: str) -> None:
        self._fail(UnavailableError(f"an answer cannot be read: {reason}"))
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(status_line.split(" ", 2)[1]), headers


def _error(answer: HttpAnswer) -> LeptonError:
    error = _told(answer)
    wait_s = answer.headers.get("retry-after", "")
    if wait_s.isdecimal():
        error.retry_after_s = float(wait_s)
    return error


def _told(answer: HttpAnswer) -> LeptonError:
    try:
        form = orjson.loads(answer.body)
        told = {name: str(form.get(name, "")) for name in ("error", "hint", "reason")}
    except (orjson.JSONDecodeError, AttributeError):
        return error_from_http(answer.status, f"the server answered {answer.status}")
    if not told["error"]:
        return InternalError(f"the server answered {answer.status}")
    return error_from_http(answer.status, told["error"], hint=told["hint"], reason=told["reason"])
