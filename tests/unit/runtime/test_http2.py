"""HTTP/2 and gRPC: what a strict client of another make sees."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hpack import Encoder

from lepton_runtime.http import Connection, Exchange, Handler, HttpLimits, HttpServer
from lepton_runtime.http2.connection import Http2Connection, speak
from lepton_runtime.http2.heads import HeadError, Heads
from lepton_runtime.http2.streams import Streaming

LIMITS = HttpLimits(head_bytes=4096, body_bytes=100_000, buffered_bytes=150_000)
CALL = "/s/Call"


class Pipe(asyncio.Transport):
    """What the server writes, and whether it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.reading = True
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol | None:
        return self.protocol

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


@dataclass
class Answer:
    """What came on a stream."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None


class Client:
    """The `h2` library's client, connected to a server without a network."""

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop, **own: int) -> None:
        self.loop = loop
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=False))
        self.pipe = Pipe()

        async def made() -> HttpServer:
            return HttpServer(handler, LIMITS, speak({CALL + "s": ECHOED}))

        self.server = loop.run_until_complete(made())
        connection = cast("Any", self.server.http2)(self.server, self.pipe)
        self.connection = cast("Http2Connection", connection)
        self.answers: dict[int, Answer] = {}
        self.gone: h2.events.ConnectionTerminated | None = None
        self.acknowledges = True
        if own:
            settings = {h2.settings.SettingCodes[name]: value for name, value in own.items()}
            self.h2.local_settings.update(settings)
            self.h2.local_settings.acknowledge()
        self.h2.initiate_connection()
        self.exchange()

    def exchange(self) -> None:
        """Carry bytes both ways until there are none."""
        for _ in range(100):
            self.loop.run_until_complete(asyncio.sleep(0))
            out = self.h2.data_to_send()
            if out:
                self.connection.data_received(out)
            written, self.pipe.written = b"".join(self.pipe.written), []
            if not out and not written:
                return
            for event in self.h2.receive_data(written):
                self._note(event)
        raise AssertionError("they do not come to an end")

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.gone = event
        number = getattr(event, "stream_id", None)
        if not number:
            return
        answer = self.answers.setdefault(number, Answer())
        match event:
            case h2.events.ResponseReceived():
                answer.headers = dict(event.headers)
            case h2.events.TrailersReceived():
                answer.trailers = dict(event.headers)
            case h2.events.DataReceived():
                answer.body += event.data
                if self.acknowledges:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, number)
            case h2.events.StreamEnded():
                answer.ended = True
            case h2.events.StreamReset():
                answer.reset = int(event.error_code)
            case _:
                pass

    def begin(self, path: str, *more: tuple[str, str], method: str = "POST") -> int:
        number = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", "t"), (":path", path)]
        self.h2.send_headers(number, [*head, *more])
        return number

    def ask(self, path: str, body: bytes, *more: tuple[str, str]) -> Answer:
        number = self.begin(path, *more)
        for start in range(0, len(body), 16_000):
            self.h2.send_data(number, body[start : start + 16_000])
        self.h2.end_stream(number)
        self.exchange()
        return self.answers.setdefault(number, Answer())

    def call(self, message: bytes, *more: tuple[str, str], path: str = CALL) -> Answer:
        return self.ask(path, framed(message), ("content-type", "application/grpc"), *more)


ECHOED = Streaming(
    CALL, 50_000, lambda answer: b"<" + answer + b">", lambda asked, text: b"!" + asked
)


def framed(message: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(message)) + message


def messages(body: bytes) -> list[bytes]:
    found: list[bytes] = []
    while body:
        _, length = struct.unpack_from(">BI", body)
        found.append(body[5 : 5 + length])
        body = body[5 + length :]
    return found


def echo(exchange: Exchange) -> None:
    if exchange.body == b"bad":
        status = b"lepton-grpc-status: 9\r\nlepton-grpc-message: no %C3%A9\r\n"
        exchange.reply(409, status, b"")
    else:
        exchange.reply(200, b"", exchange.body)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


Connect = Callable[..., Client]


@pytest.fixture
def connect(loop: asyncio.AbstractEventLoop) -> Connect:
    def connected(handler: Handler = echo, **own: int) -> Client:
        return Client(handler, loop, **own)

    return connected


def test_a_request_as_in_http_1(connect: Connect) -> None:
    seen: list[Exchange] = []

    def note(exchange: Exchange) -> None:
        seen.append(exchange)
        exchange.reply(201, b"content-type: text/plain\r\nx-a: b\r\n", b"made")

    client = connect(note)
    answer = client.ask("/a/b?c=d", b"body", ("X-Y".lower(), "z"))
    assert (answer.headers[b":status"], answer.body, answer.ended) == (b"201", b"made", True)
    assert answer.headers[b"x-a"] == b"b"
    assert answer.headers[b"content-length"] == b"4"
    [exchange] = seen
    assert (exchange.method, exchange.path, exchange.body) == ("POST", "/a/b", b"body")
    assert exchange.headers == {b"x-y": b"z", b"host": b"t"}
    number = client.begin("/", method="HEAD")
    client.h2.end_stream(number)
    client.exchange()
    assert (client.answers[number].body, client.answers[number].ended) == (b"", True)


@pytest.mark.parametrize("pieces", [(1, 20), (3, 4, 5), (23,), (24,)])
def test_an_opening_may_come_in_pieces(
    loop: asyncio.AbstractEventLoop, pieces: tuple[int, ...]
) -> None:
    async def check() -> bytes:
        pipe = Pipe()
        connection = Connection(HttpServer(echo, LIMITS, speak({})))
        connection.connection_made(pipe)
        client = h2.connection.H2Connection()
        client.initiate_connection()
        opening = client.data_to_send()
        for start, end in itertools.pairwise((0, *pieces, len(opening))):
            protocol = pipe.get_protocol() or connection
            cast("asyncio.Protocol", protocol).data_received(opening[start:end])
        return b"".join(pipe.written)

    client = h2.connection.H2Connection()
    client.initiate_connection()
    events = client.receive_data(loop.run_until_complete(check()))
    assert any(isinstance(event, h2.events.RemoteSettingsChanged) for event in events)


def test_a_call_and_its_failure(connect: Connect) -> None:
    client = connect()
    answer = client.call(b"hello")
    assert messages(answer.body) == [b"hello"]
    assert answer.trailers == {b"grpc-status": b"0"}
    assert answer.headers[b"content-type"] == b"application/grpc"
    failed = client.call(b"bad")
    assert (failed.headers[b"grpc-status"], failed.headers[b"grpc-message"]) == (b"9", b"no %C3%A9")
    assert failed.ended
    for wrong in (b"", b"\0\0\0", framed(b"x") + b"more", framed(b"xy")[:-1]):
        answer = client.ask(CALL, wrong, ("content-type", "application/grpc"))
        assert answer.headers[b"grpc-status"] == b"13"
    assert messages(client.call(b"still there").body) == [b"still there"]


@pytest.mark.parametrize(("name", "packed"), [("gzip", gzip.compress(b"hello" * 100))])
def test_compressed_messages(connect: Connect, name: str, packed: bytes) -> None:
    client = connect()
    kind = ("content-type", "application/grpc")
    answer = client.ask(CALL, framed(packed, 1), kind, ("grpc-encoding", name))
    assert answer.headers[b"grpc-encoding"] == b"gzip"
    assert gzip.decompress(messages(answer.body)[0]) == b"hello" * 100
    unknown = client.ask(CALL, framed(packed, 1), kind, ("grpc-encoding", "br"))
    assert unknown.headers[b"grpc-status"] == b"12"
    bomb = gzip.compress(bytes(10_000_000))
    refused = client.ask(CALL, framed(bomb, 1), kind, ("grpc-encoding", name))
    assert refused.headers[b"grpc-status"] == b"8"


def test_calls_are_answered_in_any_order_and_each_gets_its_own(connect: Connect) -> None:
    held: list[Exchange] = []
    client = connect(held.append)
    numbers: list[int] = []
    for n in range(100):
        number = client.begin(CALL, ("content-type", "application/grpc"))
        client.h2.send_data(number, framed(b"%d" % n), end_stream=True)
        numbers.append(number)
    client.exchange()
    for exchange in reversed(held):
        echo(exchange)
    client.exchange()
    assert [messages(client.answers[n].body) for n in numbers] == [[b"%d" % n] for n in range(100)]
    assert client.server.buffered_bytes == 0


def test_a_stream_is_answered_in_order_and_goes_on_after_a_failure(connect: Connect) -> None:
    held: list[Exchange] = []
    client = connect(held.append)
    number = client.begin(CALL + "s", ("content-type", "application/grpc"))
    asked = [b"bad" if n == 3 else b"%d" % n for n in range(100)]
    body = b"".join(framed(each) for each in asked)
    client.h2.send_data(number, body[:7])
    client.exchange()
    client.h2.send_data(number, body[7:], end_stream=True)
    client.exchange()
    assert len(held) == 32
    while held:
        now, held[:] = list(held), []
        for exchange in reversed(now):
            echo(exchange)
        client.exchange()
    answer = client.answers[number]
    wanted = [b"!bad" if each == b"bad" else b"<" + each + b">" for each in asked]
    assert messages(answer.body) == wanted
    assert answer.trailers == {b"grpc-status": b"0"}
    assert client.server.buffered_bytes == 0


def test_a_stream_carries_more_than_its_window(connect: Connect) -> None:
    client = connect()
    number = client.begin(CALL + "s", ("content-type", "application/grpc"))
    for _ in range(200):
        client.h2.send_data(number, framed(bytes(10_000)))
        client.exchange()
    client.h2.end_stream(number)
    client.exchange()
    assert len(messages(client.answers[number].body)) == 200
    assert client.answers[number].trailers == {b"grpc-status": b"0"}


def test_answers_wait_for_the_clients_windows(connect: Connect) -> None:
    client = connect(
        lambda exchange: exchange.reply(200, b"", bytes(90_000)), INITIAL_WINDOW_SIZE=1000
    )
    client.acknowledges = False
    number = client.begin("/")
    client.h2.end_stream(number)
    client.exchange()
    answer = client.answers[number]
    assert (len(answer.body), answer.ended) == (1000, False)
    client.h2.increment_flow_control_window(200_000, number)
    client.exchange()
    assert (len(answer.body), answer.ended) == (65_535, False)
    client.h2.increment_flow_control_window(100_000)
    client.exchange()
    assert (len(answer.body), answer.ended) == (90_000, True)


def test_what_is_too_large_is_refused_and_the_connection_goes_on(connect: Connect) -> None:
    client = connect()
    answer = client.call(bytes(LIMITS.body_bytes + 1))
    assert answer.headers[b"grpc-status"] == b"8"
    plain = client.ask("/", bytes(LIMITS.body_bytes + 1))
    assert plain.headers[b":status"] == b"413"
    assert client.call(bytes(LIMITS.body_bytes)).trailers == {b"grpc-status": b"0"}
    assert client.server.buffered_bytes == 0


def test_more_than_the_server_may_hold_is_refused(connect: Connect) -> None:
    held: list[Exchange] = []
    client = connect(held.append)
    for _ in range(2):
        client.call(bytes(90_000))
    assert len(held) == 1
    assert client.answers[3].headers[b"grpc-status"] == b"14"
    echo(held[0])
    client.exchange()
    assert client.server.buffered_bytes == 0


def test_who_has_gone_is_not_answered(connect: Connect) -> None:
    held: list[Exchange] = []
    client = connect(held.append)
    client.call(b"one")
    client.h2.reset_stream(1)
    client.exchange()
    assert held[0].gone
    echo(held[0])
    client.exchange()
    client.call(b"two")
    client.connection.connection_lost(None)
    assert held[1].gone
    echo(held[1])
    assert client.server.buffered_bytes == 0
    assert not client.server.connections


def test_a_server_that_stops_answers_what_it_has(connect: Connect) -> None:
    held: list[Exchange] = []
    client = connect(held.append)
    client.call(b"one")
    client.connection.close_if_idle()
    assert not client.pipe.closed
    [goaway] = client.pipe.written
    client.pipe.written = []  # On reading it that client would take no answers any more.
    assert goaway[3] == 7
    assert struct.unpack(">II", goaway[9:]) == (1, h2.errors.ErrorCodes.NO_ERROR)
    assert client.call(b"two").reset == h2.errors.ErrorCodes.REFUSED_STREAM
    echo(held[0])
    client.exchange()
    assert client.answers[1].trailers == {b"grpc-status": b"0"}
    assert client.pipe.closed


def test_slow_requests_and_idle_connections_end(connect: Connect) -> None:
    client = connect()
    client.begin(CALL, ("content-type", "application/grpc"))
    client.exchange()
    now = client.loop.time()
    client.connection.expire(now + LIMITS.receive_timeout_s + 1)
    client.exchange()
    assert client.answers[1].headers[b"grpc-status"] == b"13"
    client.connection.expire(now + LIMITS.idle_timeout_s + 1)
    assert client.pipe.closed


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", 6),  # larger than allowed
        (b"\x00\x00\x01\x00\x00\x00\x00\x00\x09x", 1),  # data of a stream that never began
        (b"\x00\x00\x01\x09\x00\x00\x00\x00\x01x", 1),  # the rest of no head
        (b"\x00\x00\x00\x05\x00\x00\x00\x00\x01", 1),  # clients push nothing
        (b"\x00\x00\x01\x01\x05\x00\x00\x00\x02\x82", 1),  # an even stream
        (b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\xff", 9),  # no header block
        (b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00", 3),  # a window grows by nothing
        (b"\x00\x00\x03\x06\x00\x00\x00\x00\x00abc", 6),  # a short ping
    ],
)
def test_who_breaks_the_protocol_is_told_and_left(
    connect: Connect, frame: bytes, code: int
) -> None:
    client = connect()
    client.connection.data_received(frame)
    client.exchange()
    assert client.gone is not None
    assert int(client.gone.error_code or 0) == code
    assert client.pipe.closed


def test_any_cut_of_the_bytes_means_the_same(connect: Connect) -> None:
    client = connect()
    number = client.begin(CALL, ("content-type", "application/grpc"))
    client.h2.send_data(number, framed(b"hello"), end_stream=True, pad_length=7)
    for byte in client.h2.data_to_send():
        client.connection.data_received(bytes([byte]))
    client.exchange()
    assert messages(client.answers[number].body) == [b"hello"]


def test_pings_are_answered_and_reading_stops_while_answers_pile_up(connect: Connect) -> None:
    client = connect()
    client.h2.ping(b"12345678")
    client.exchange()
    client.connection.pause_writing()
    assert not client.pipe.reading
    client.connection.resume_writing()
    assert client.pipe.reading


def test_heads_mean_the_same_however_often_they_come() -> None:
    encoder, heads = Encoder(), Heads(4096)
    for round_ in range(200):
        fields = {":method": "POST", ":path": f"/{round_ % 3}", "x": str(round_ // 50)}
        head = heads.decode(encoder.encode(list(fields.items())))
        assert (head.path, head.headers[b"x"]) == (fields[":path"], fields["x"].encode())
    with pytest.raises(HeadError):
        heads.decode(encoder.encode([("big", "x" * 5000)]))
