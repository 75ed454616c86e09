"""An HTTP/1.1 server with as little as possible between the socket and a handler.

httptools (the parser of Node.js) reads requests, uvloop moves the bytes. A request is an
`Exchange`: the handler is called once its body is complete and calls `reply` when it has the
answer, at once or later; there is no task, no future and no middleware in between, which is a
third of the CPU that an ASGI server spends on a request. One exchange of a connection is with
the handler at a time, so pipelined requests are answered in order. A client that asks the same
again and again sends the same head again, which is compared then and not parsed.

Whatever a client sends is limited before it is buffered: heads, bodies, the bodies of all
connections together, and the time a request may take to arrive.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol, cast

import httptools
import orjson

_REASON: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
} | {499: b"HTTP/1.1 499 Client Closed Request\r\n"}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"connection: close\r\n"
_HEAD_END: Final = b"\r\n\r\n"
HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
JSON_TYPE: Final = b"content-type: application/json\r\n"

# A client that was refused in the middle of its body gets this long to read the answer before the
# connection is closed: closing with unread bytes would reset it and lose the answer.
_LINGER_S: Final = 1.0
_SWEEP_PERIOD_S: Final = 1.0
# Up to here one write of a copy costs less than two writes.
_JOINED_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a client may make the server hold.

    Attributes:
        head_bytes: Request line and headers of one request.
        body_bytes: One body, as received.
        buffered_bytes: The bodies of all unanswered requests together.
        receive_timeout_s: From a request's first byte to its last.
        idle_timeout_s: Between requests of a connection.
    """

    head_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024 * 1024
    buffered_bytes: int = 512 * 1024 * 1024
    receive_timeout_s: float = 60.0
    idle_timeout_s: float = 600.0


class Answering(Protocol):
    """Where the answer to an exchange goes.

    Attributes:
        lost: Whether nobody waits for it any more.
    """

    lost: bool

    def answer(
        self, exchange: Exchange, status: int, headers: bytes, body: bytes | memoryview
    ) -> None:
        """Send it; called exactly once."""
        ...


class ServerConnection(Protocol):
    """A connection as its server sees it."""

    def close_if_idle(self) -> None:
        """Close unless a request is being received or answered."""
        ...

    def abort(self) -> None:
        """Close at once, answered or not."""
        ...

    def expire(self, now_s: float) -> None:
        """Close when a request arrives too slowly, or none has come for long."""
        ...


class Exchange:
    """One request, and the way to answer it.

    Attributes:
        method: Such as ``"POST"``.
        path: The path as sent, without the query.
        headers: Names in lower case; of a repeated header, the last value. Several exchanges may
            share them: never change them.
        body: The body as received (decompressing it is the handler's business).
    """

    __slots__ = ("_connection", "body", "headers", "method", "path")

    def __init__(
        self,
        connection: Answering,
        method: str,
        path: str,
        headers: dict[bytes, bytes],
        body: bytes,
    ) -> None:
        self._connection = connection
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._connection.lost

    def reply(self, status: int, headers: bytes, body: bytes | memoryview) -> None:
        """Send the answer; to be called exactly once, on the event loop.

        Args:
            status: The HTTP status.
            headers: Whole header lines, each ended by CR LF; `content-length` is added.
            body: The body.
        """
        self._connection.answer(self, status, headers, body)


Handler = Callable[[Exchange], None]


class _Known(NamedTuple):
    """The request that came before, where it came in one piece and its connection stays open."""

    head: bytes
    size_bytes: int
    method: str
    path: str
    headers: dict[bytes, bytes]


_NOTHING_KNOWN: Final = _Known(b"", -1, "", "", {})


class Connection(asyncio.Protocol):
    """The parser's callbacks and the order of exchanges on one connection."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._parser = httptools.HttpRequestParser(self)
        self._transport = cast("asyncio.Transport", None)
        # Whole requests, each with whether the client keeps the connection open after it.
        self._waiting: deque[tuple[Exchange, bool]] = deque()
        self._current: Exchange | None = None
        self._keep_alive = True
        self._starting = False
        self._reading = True
        self._clogged = False  # The client does not read its answers.
        self._deaf = False  # Whatever else comes on this connection is ignored.
        self.lost = False
        self._receiving = False
        self._known = _NOTHING_KNOWN
        self._fresh = True  # Which protocol it speaks is not known.
        self._opening = b""
        self._active_s = 0.0
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._head_bytes = 0
        self._body_bytes = 0
        self._in_head = True

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the way out."""
        self._transport = cast("asyncio.Transport", transport)
        self._active_s = time.monotonic()
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the connection held; its exchanges are `gone` from here on."""
        self.lost = True
        self._server.connections.discard(self)
        self._server.buffered_bytes -= self._held_bytes()
        self._waiting.clear()
        self._current = None

    def data_received(self, data: bytes) -> None:
        """Parse; complete requests reach the handler from within."""
        if self._deaf:
            return
        begins = not self._receiving
        if begins:
            if len(data) == self._known.size_bytes and data.startswith(self._known.head):
                self._take_again(data)
                return
            self._receiving = True
            self._active_s = time.monotonic()
        if self._fresh:
            data = self._opening + data
            if self._speaks_http2(data):
                return
        self._parse(data, begins)

    def _parse(self, data: bytes, begins: bool) -> None:
        headers = self._headers
        try:
            self._parser.feed_data(data)
            if begins and not self._receiving:
                self._remember(data)
        except httptools.HttpParserUpgrade:
            # The request itself has been handed over; the other protocol is not offered.
            self._keep_alive = False
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(400, f"the request is not HTTP/1.1: {error}")
        if self._in_head and self._headers is headers:  # No end of a head in all of the data.
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(431, f"headers are larger than {self._limits.head_bytes} bytes")

    def pause_writing(self) -> None:
        """Answers pile up: take no more requests."""
        self._clogged = True
        self._read_or_rest()

    def resume_writing(self) -> None:
        """Answers went out: go on."""
        self._clogged = False
        self._read_or_rest()

    def _speaks_http2(self, data: bytes) -> bool:
        """Hand the connection over if its first bytes are those of HTTP/2, or wait for them all."""
        server = self._server
        if server.http2 is not None and len(data) < len(HTTP2_PREFACE):
            self._opening = data if HTTP2_PREFACE.startswith(data) else b""
            self._fresh = bool(self._opening)
            return self._fresh
        self._fresh = False
        if server.http2 is None or not data.startswith(HTTP2_PREFACE):
            return False
        server.connections.discard(self)
        other = server.http2(server, self._transport)
        self._transport.set_protocol(other)
        other.data_received(data)
        return True

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request starts."""
        self._receiving = True
        self._begin()

    def on_url(self, url: bytes) -> None:
        """Part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One whole header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Refuse by the announced length, before anything of the body is kept."""
        self._in_head = False
        length = int(self._headers.get(b"content-length", b"0"))
        if self._admits(length) and self._headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(_CONTINUE)

    def on_body(self, data: bytes) -> None:
        """Part of the body."""
        if self._deaf or not self._admits(self._body_bytes + len(data)):
            return
        self._body_bytes += len(data)
        self._server.buffered_bytes += len(data)
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        """A request is whole: hand it over, or keep it until those before it are answered."""
        if self._deaf:
            return
        self._receiving = False
        self._body_bytes = 0
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        exchange = Exchange(self, self._method(), self._path(), self._headers, body)
        self._waiting.append((exchange, self._parser.should_keep_alive()))
        self._start_next()

    def _method(self) -> str:
        return self._parser.get_method().decode()

    def _path(self) -> str:
        return self._url.partition(b"?")[0].decode("latin-1")

    def _remember(self, data: bytes) -> None:
        """Know the head again, if it and its whole body are all of the data.

        The data has to begin and to end between requests, or part of a head would pass for one.
        """
        length = self._headers.get(b"content-length")
        start = data.find(_HEAD_END) + len(_HEAD_END)
        if (
            length is not None
            and int(length) == len(data) - start
            and b"expect" not in self._headers
            and self._parser.should_keep_alive()
        ):
            method, path = self._method(), self._path()
            self._known = _Known(data[:start], len(data), method, path, self._headers)

    def _take_again(self, data: bytes) -> None:
        """A request whose head is that of the one before."""
        known = self._known
        body = data[len(known.head) :]
        if not self._admits(len(body)):
            return
        self._server.buffered_bytes += len(body)
        exchange = Exchange(self, known.method, known.path, known.headers, body)
        self._waiting.append((exchange, True))
        self._start_next()

    # What exchanges and the server call.

    def answer(
        self, exchange: Exchange, status: int, headers: bytes, body: bytes | memoryview
    ) -> None:
        """Write the answer of the current exchange and turn to the next."""
        if self.lost:
            return
        assert exchange is self._current, "an exchange is answered exactly once"
        self._current = None
        self._server.buffered_bytes -= len(exchange.body)
        if self._keep_alive and not self._server.draining:
            self._write(exchange.method, status, headers, body)
            self._active_s = time.monotonic()
            self._start_next()
        else:
            self._write(exchange.method, status, headers + _CLOSE, body)
            self._deaf = True
            self._transport.close()

    def close_if_idle(self) -> None:
        """Close unless a request is being received or answered."""
        if self._current is None and not self._receiving:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, answered or not."""
        self._transport.abort()

    def expire(self, now_s: float) -> None:
        """Close when a request arrives too slowly, or none has come for long."""
        if self._current is not None or self._deaf:
            return
        age_s = now_s - self._active_s
        if self._receiving and age_s > self._limits.receive_timeout_s:
            self._refuse(408, f"no whole request in {self._limits.receive_timeout_s:g} s")
        elif not self._receiving and age_s > self._limits.idle_timeout_s:
            self._transport.close()

    def _start_next(self) -> None:
        # A handler may answer at once, which comes back here: the loop, not recursion, goes on.
        if self._starting:
            return
        self._starting = True
        while self._waiting and self._current is None and not self._deaf:
            self._current, self._keep_alive = self._waiting.popleft()
            self._server.handler(self._current)
        self._starting = False
        self._read_or_rest()

    def _read_or_rest(self) -> None:
        wanted = not self._waiting and not self._clogged
        if wanted == self._reading or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _admits(self, body_bytes: int) -> bool:
        if body_bytes > self._limits.body_bytes:
            self._refuse(413, f"the body is larger than {self._limits.body_bytes} bytes")
            return False
        if self._server.buffered_bytes + body_bytes > self._limits.buffered_bytes:
            self._refuse(503, "the server holds as many requests as it can; try again")
            return False
        return True

    def _refuse(self, status: int, message: str) -> None:
        self._deaf = True
        if self._current is None:
            self._write("", status, JSON_TYPE + _CLOSE, orjson.dumps({"error": message}))
        self._server.loop.call_later(_LINGER_S, self._transport.close)

    def _write(self, method: str, status: int, headers: bytes, body: bytes | memoryview) -> None:
        head = b"%bcontent-length: %d\r\n%b\r\n" % (_REASON[status], len(body), headers)
        if method == "HEAD":
            self._transport.write(head)
        elif len(body) <= _JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def _held_bytes(self) -> int:
        current = len(self._current.body) if self._current is not None else 0
        return self._body_bytes + current + sum(len(item.body) for item, _ in self._waiting)


Speaker = Callable[["HttpServer", asyncio.Transport], asyncio.Protocol]


class HttpServer:
    """A listening socket and its connections.

    Args:
        handler: Called with every request; must return without blocking.
        limits: What a client may make the server hold.
        http2: Takes connections of HTTP/2 over (`lepton_runtime.http2`); None refuses them.
    """

    def __init__(self, handler: Handler, limits: HttpLimits, http2: Speaker | None = None) -> None:
        self.handler = handler
        self.limits = limits
        self.http2 = http2
        self.connections: set[ServerConnection] = set()
        self.buffered_bytes = 0
        self.draining = False
        self.loop = asyncio.get_running_loop()
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Start to listen there too; returns the address, with the port that port 0 became.

        Raises:
            OSError: The address is taken or is not one of this machine.
        """
        listener = await self.loop.create_server(
            lambda: Connection(self), host, port, ssl=tls, backlog=2048
        )
        self._listeners.append(listener)
        return listener.sockets[0].getsockname()[:2]

    async def sweep(self) -> None:
        """Close connections that are too slow or too long idle, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_PERIOD_S)
            now_s = time.monotonic()
            for connection in tuple(self.connections):
                connection.expire(now_s)

    async def drain(self, timeout_s: float) -> None:
        """Stop to listen, answer what has been received, and close every connection.

        Requests unanswered after `timeout_s` seconds lose their connection.
        """
        self.draining = True
        for listener in self._listeners:
            listener.close()
        deadline_s = time.monotonic() + timeout_s
        while self.connections and time.monotonic() < deadline_s:
            for connection in tuple(self.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.01)
        for connection in tuple(self.connections):
            connection.abort()
