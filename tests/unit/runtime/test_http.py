"""One connection's bytes in, bytes out: order, limits, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lepton_runtime.http import JSON_TYPE, Connection, Exchange, HttpLimits, HttpServer

LIMITS = HttpLimits(head_bytes=1024, body_bytes=100, buffered_bytes=150)


class StubTransport(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.reading = True
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent += bytes(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Peer:
    """A connection, the requests that reached the handler, and what came back."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.server = HttpServer(self.handle, LIMITS)
        self.connection = Connection(self.server)
        self.transport = StubTransport()
        self.connection.connection_made(self.transport)

    def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if exchange.path == "/now":
            exchange.reply(200, b"", b"now")

    def send(self, *lines: str, body: bytes = b"") -> None:
        head = "".join(f"{line}\r\n" for line in (*lines, ""))
        self.connection.data_received(head.encode() + body)


def scenario(check: Callable[[Peer], None]) -> None:
    """Run a check where there is an event loop."""

    async def body() -> None:
        check(Peer())

    asyncio.run(body())


POST = ("POST /v2?a=b HTTP/1.1", "Host: x", "Content-Length: 5")


def test_a_request_and_its_answer() -> None:
    def check(peer: Peer) -> None:
        for chunk in (
            b"POST /v2?a=b HT",
            b"TP/1.1\r\nX-Tag: 7\r\nContent-",
            b"Length: 5\r\n\r\nhe",
            b"llo",
        ):
            peer.connection.data_received(chunk)
        (exchange,) = peer.exchanges
        assert (exchange.method, exchange.path, exchange.body) == ("POST", "/v2", b"hello")
        assert exchange.headers[b"x-tag"] == b"7"
        exchange.reply(200, JSON_TYPE, b"{}")
        assert peer.transport.sent == (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"
        )
        assert peer.server.buffered_bytes == 0
        assert not peer.transport.closed

    scenario(check)


AGAIN = b"POST /v2?a=b HTTP/1.1\r\nX-Tag: 7\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "tag"),
    [
        ([AGAIN + b"hello", AGAIN + b"world"], b"7"),
        ([AGAIN + b"hello", AGAIN[:20], AGAIN[20:] + b"world"], b"7"),
        ([AGAIN + b"hello", AGAIN, b"world"], b"7"),
        ([AGAIN + b"hello" + AGAIN + b"world"], b"7"),
        ([AGAIN + b"hello", AGAIN.replace(b"7", b"8") + b"world"], b"8"),
        ([AGAIN + b"hello", AGAIN.replace(b"5", b"6") + b"worlds"], b"7"),
        ([AGAIN + b"hello", AGAIN.replace(b"X-Tag: 7", b"Expect: 100-continue") + b"world"], None),
    ],
)
def test_requests_that_repeat_each_other_are_each_read_right(
    pieces: list[bytes], tag: bytes | None
) -> None:
    def check(peer: Peer) -> None:
        answered = 0
        for piece in (*pieces, AGAIN + b"third"):
            peer.connection.data_received(piece)
            while answered < len(peer.exchanges):
                exchange = peer.exchanges[answered]
                exchange.reply(200, b"", exchange.body)
                answered += 1
        bodies = [exchange.body for exchange in peer.exchanges]
        assert [body[:5] for body in bodies] == [b"hello", b"world", b"third"]
        tags = [exchange.headers.get(b"x-tag") for exchange in peer.exchanges]
        assert tags == [b"7", tag, b"7"]
        assert {exchange.path for exchange in peer.exchanges} == {"/v2"}
        assert peer.transport.sent.count(b"HTTP/1.1 200") == 3
        assert peer.server.buffered_bytes == 0

    scenario(check)


@pytest.mark.parametrize("before", [b"GET /x HTTP/1.1\r\nX: ", AGAIN + b"hel"])
def test_a_piece_that_looks_like_a_request_is_not_one(before: bytes) -> None:
    def check(peer: Peer) -> None:
        rest = b"" if before.startswith(b"GET") else b"lo"
        answered = 0
        for piece in (before, rest + AGAIN + b"again", AGAIN + b"third"):
            peer.connection.data_received(piece)
            while answered < len(peer.exchanges):
                peer.exchanges[answered].reply(200, b"", b"")
                answered += 1
        exchange = peer.exchanges[-1]
        assert (exchange.method, exchange.path, exchange.body) == ("POST", "/v2", b"third")
        assert exchange.headers == {b"x-tag": b"7", b"content-length": b"5"}

    scenario(check)


def test_a_body_that_looks_like_the_request_before_is_a_body() -> None:
    def check(peer: Peer) -> None:
        now, body = AGAIN.replace(b"/v2?a=b", b"/now") + b"hello", AGAIN + b"world"
        head = b"POST /now HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        peer.connection.data_received(AGAIN + b"again")
        peer.exchanges[0].reply(200, b"", b"")
        peer.connection.data_received(now + head)
        peer.connection.data_received(body)
        assert [exchange.body for exchange in peer.exchanges] == [b"again", b"hello", body]

    scenario(check)


@pytest.mark.parametrize("body", [b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"], ids=["empty", "whole"])
def test_bodies_in_chunks_that_repeat_each_other_are_each_read_right(body: bytes) -> None:
    def check(peer: Peer) -> None:
        for _ in range(3):
            peer.send("POST /now HTTP/1.1", "Transfer-Encoding: chunked", body=body)
        assert len({exchange.body for exchange in peer.exchanges}) == 1
        assert len(peer.exchanges) == 3

    scenario(check)


def test_a_repeated_request_counts_towards_what_all_bodies_may_take() -> None:
    def check(peer: Peer) -> None:
        for _ in range(2):
            peer.send("POST /now HTTP/1.1", "Content-Length: 100", body=bytes(100))
        peer.server.buffered_bytes = 60
        peer.send("POST /now HTTP/1.1", "Content-Length: 100", body=bytes(100))
        assert len(peer.exchanges) == 2
        assert b"HTTP/1.1 503" in peer.transport.sent
        assert peer.server.buffered_bytes == 60

    scenario(check)


def test_pipelined_requests_are_answered_in_order() -> None:
    def check(peer: Peer) -> None:
        peer.connection.data_received(
            b"GET /slow HTTP/1.1\r\n\r\n" + b"GET /now HTTP/1.1\r\n\r\n" * 3000
        )
        assert [exchange.path for exchange in peer.exchanges] == ["/slow"]
        assert not peer.transport.reading
        peer.exchanges[0].reply(200, b"", b"slow")
        assert len(peer.exchanges) == 3001
        assert peer.transport.sent.index(b"slow") < peer.transport.sent.index(b"now")
        assert peer.transport.sent.count(b"HTTP/1.1 200") == 3001
        assert peer.transport.reading

    scenario(check)


def test_heads_are_limited_each_by_itself() -> None:
    def check(peer: Peer) -> None:
        head = b"GET /now HTTP/1.1\r\nX: " + b"y" * 900 + b"\r\n\r\n"
        peer.connection.data_received(head * 5 + head[:500])
        peer.connection.data_received(head[500:])
        assert len(peer.exchanges) == 6

    scenario(check)


def test_a_head_request_gets_no_body() -> None:
    def check(peer: Peer) -> None:
        peer.send("HEAD /now HTTP/1.1")
        assert peer.transport.sent == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"

    scenario(check)


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    def check(peer: Peer) -> None:
        peer.connection.pause_writing()
        assert not peer.transport.reading
        peer.connection.resume_writing()
        assert peer.transport.reading

    scenario(check)


def test_a_large_body_is_refused_before_it_is_sent() -> None:
    def check(peer: Peer) -> None:
        peer.send("POST / HTTP/1.1", "Content-Length: 101", "Expect: 100-continue")
        assert peer.transport.sent.startswith(b"HTTP/1.1 413")
        assert b"larger than 100 bytes" in peer.transport.sent
        assert b"connection: close" in peer.transport.sent
        peer.connection.data_received(b"x" * 101)
        assert not peer.exchanges

    scenario(check)


def test_a_large_body_without_a_length_is_refused_when_it_is_too_large() -> None:
    def check(peer: Peer) -> None:
        peer.send("POST / HTTP/1.1", "Transfer-Encoding: chunked")
        for _ in range(3):
            peer.connection.data_received(b"28\r\n" + b"x" * 40 + b"\r\n")
        assert peer.transport.sent.startswith(b"HTTP/1.1 413")
        peer.connection.connection_lost(None)
        assert peer.server.buffered_bytes == 0

    scenario(check)


def test_all_bodies_together_are_limited() -> None:
    def check(peer: Peer) -> None:
        peer.send("POST / HTTP/1.1", "Content-Length: 90", body=b"x" * 90)
        other = Connection(peer.server)
        transport = StubTransport()
        other.connection_made(transport)
        other.data_received(b"POST / HTTP/1.1\r\nContent-Length: 61\r\n\r\n")
        assert transport.sent.startswith(b"HTTP/1.1 503")
        peer.connection.connection_lost(None)
        assert peer.server.buffered_bytes == 0

    scenario(check)


def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    def check(peer: Peer) -> None:
        peer.send(*POST, "Expect: 100-continue")
        assert peer.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.connection.data_received(b"hello")
        assert peer.exchanges[0].body == b"hello"

    scenario(check)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: ten\r\n\r\n", b"400"),
    ],
)
def test_what_is_not_http_is_refused(data: bytes, status: bytes) -> None:
    def check(peer: Peer) -> None:
        peer.connection.data_received(data)
        assert peer.transport.sent.startswith(b"HTTP/1.1 " + status)
        assert not peer.exchanges

    scenario(check)


def test_a_request_that_begins_like_http_2_is_still_one_of_http_1() -> None:
    def check(peer: Peer) -> None:
        peer.server.http2 = lambda *_: pytest.fail("this is HTTP/1.1")
        for piece in (b"P", b"OST /a HTTP/1.1\r\nContent-Length: 1\r\n", b"\r\nb"):
            peer.connection.data_received(piece)
        assert [(one.method, one.body) for one in peer.exchanges] == [("POST", b"b")]

    scenario(check)


def test_a_head_without_end_is_refused() -> None:
    def check(peer: Peer) -> None:
        peer.connection.data_received(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(10):
            peer.connection.data_received(b"y" * 200)
        assert peer.transport.sent.startswith(b"HTTP/1.1 431")

    scenario(check)


@pytest.mark.parametrize(
    "lines",
    [
        ("GET / HTTP/1.1", "Connection: close"),
        ("GET / HTTP/1.0",),
        ("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: h2c"),
    ],
)
def test_the_connection_closes_where_the_client_does_not_keep_it(lines: tuple[str, ...]) -> None:
    def check(peer: Peer) -> None:
        peer.send(*lines)
        peer.exchanges[0].reply(200, b"", b"")
        assert b"connection: close" in peer.transport.sent
        assert peer.transport.closed

    scenario(check)


def test_an_answer_to_nobody_goes_nowhere() -> None:
    def check(peer: Peer) -> None:
        peer.send(*POST, body=b"hello")
        peer.connection.connection_lost(None)
        assert peer.exchanges[0].gone
        peer.exchanges[0].reply(200, b"", b"")
        assert peer.transport.sent == b""
        assert peer.server.buffered_bytes == 0

    scenario(check)


def test_slow_requests_and_idle_connections_expire() -> None:
    def check(peer: Peer) -> None:
        now_s = peer.connection._active_s  # pyright: ignore[reportPrivateUsage]
        peer.connection.expire(now_s + LIMITS.idle_timeout_s - 1)
        assert not peer.transport.closed
        peer.connection.data_received(b"GET / HT")
        now_s = peer.connection._active_s  # pyright: ignore[reportPrivateUsage]
        peer.connection.expire(now_s + LIMITS.receive_timeout_s + 1)
        assert peer.transport.sent.startswith(b"HTTP/1.1 408")
        idle = Peer()
        idle.connection.expire(now_s + LIMITS.idle_timeout_s + 10)
        assert idle.transport.closed
        assert idle.transport.sent == b""

    scenario(check)


def test_draining_answers_what_was_received_and_closes() -> None:
    async def body() -> None:
        idle, busy = Peer(), Peer()
        busy.server.connections.add(idle.connection)
        busy.send(*POST, body=b"hello")
        draining = asyncio.create_task(busy.server.drain(timeout_s=10.0))
        await asyncio.sleep(0)
        assert idle.transport.closed
        assert not busy.transport.closed
        busy.exchanges[0].reply(200, b"", b"done")
        assert b"connection: close" in busy.transport.sent
        assert busy.transport.closed
        busy.server.connections.clear()
        await draining

    asyncio.run(body())
