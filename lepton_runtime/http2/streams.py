"""One request of HTTP/2 and its answer: plain, a call of gRPC, or a stream of calls."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

import orjson

from lepton_ai.errors import InvalidArgumentError
from lepton_runtime.compression import WINDOW_BITS, deflate, inflate
from lepton_runtime.http import JSON_TYPE, Exchange
from lepton_runtime.http2.frames import block, lines_block, status_block
from lepton_runtime.http2.heads import Head

__all__ = ["CallStream", "Channel", "PlainStream", "SequenceStream", "Stream", "Streaming"]

_PREFIX: Final = struct.Struct(">BI")
_COMPRESSED: Final = 1
_CALL_FIELDS: Final = [
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,deflate,gzip"),
]
_CALL_HEAD: Final = status_block(200) + block(_CALL_FIELDS)
_GZIP_HEAD: Final = _CALL_HEAD + block([(b"grpc-encoding", b"gzip")])
_OK: Final = block([(b"grpc-status", b"0")])
_INVALID, _RESOURCE_EXHAUSTED, _UNIMPLEMENTED, _INTERNAL, _UNAVAILABLE = 3, 8, 12, 13, 14
# gRPC status codes of answers that are not in the terms of gRPC.
_GRPC_STATUS: Final = {
    400: _INVALID,
    404: _UNIMPLEMENTED,
    413: _RESOURCE_EXHAUSTED,
    429: _UNAVAILABLE,
    503: _UNAVAILABLE,
}
# Requests of one stream that are under way, so that they can share a batch.
_IN_FLIGHT: Final = 32


@dataclass(frozen=True)
class Streaming:
    """How a call that streams is made of calls that do not.

    Attributes:
        path: Each message is asked as a call of this path.
        most_bytes: Of a message, and of those that are not answered yet.
        answer: Makes a message of the stream of an answer.
        error: Makes one of a request and the text of its failure; None where a failure ends the
            stream.
    """

    path: str
    most_bytes: int
    answer: Callable[[bytes], bytes]
    error: Callable[[bytes, str], bytes] | None


class Channel(Protocol):
    """The way a stream's answer goes: frames of its connection."""

    def start(self, stream: Stream, head: bytes, *, ends: bool = False) -> None:
        """Send the answer's head."""
        ...

    def send(self, stream: Stream, data: bytes | memoryview, trailers: bytes | None) -> None:
        """Send a part of the body; `trailers` (or an empty block) after the last."""
        ...

    def complete(self, stream: Stream, head: bytes, data: bytes, trailers: bytes) -> None:
        """Send head, body and trailers (or an empty block) of an answer."""
        ...

    def received(self, stream: Stream, size: int) -> None:
        """Let the client send so much more on a stream that goes on."""
        ...

    def hand_over(self, exchange: Exchange) -> None:
        """Have an exchange answered."""
        ...


class Stream:
    """What all kinds have in common.

    Attributes:
        number: Of the stream.
        most_bytes: That may be held of the body.
        window: How many bytes the client takes.
        waiting: What it does not take yet, with what follows it.
        lost: Whether nobody waits for the answer any more.
        whole: Whether the request has come to its end.
        held_bytes: Of the body, kept until it is answered.
        began_s: When the head came.
    """

    def __init__(self, channel: Channel, number: int, head: Head, most_bytes: int) -> None:
        self.number = number
        self.most_bytes = most_bytes
        self.window = 0
        self.waiting: deque[tuple[memoryview, bytes | None]] = deque()
        self.lost = False
        self.whole = False
        self.held_bytes = 0
        self.began_s = 0.0
        self._channel = channel
        self._head = head
        self._parts: list[bytes] = []

    def take(self, data: bytes) -> None:
        """A part of the body."""
        self._parts.append(data)

    def end(self) -> None:
        """The body is whole."""
        parts = self._parts
        self._ask(parts[0] if len(parts) == 1 else b"".join(parts))

    def answer(
        self, exchange: Exchange, status: int, headers: bytes, body: bytes | memoryview
    ) -> None:
        """What `Exchange.reply` calls."""
        raise NotImplementedError

    def refuse(self, status: int, message: str) -> None:
        """Answer without asking anybody."""
        raise NotImplementedError

    def _ask(self, body: bytes) -> None:
        head = self._head
        self._channel.hand_over(Exchange(self, head.method, head.path, head.headers, body))


class PlainStream(Stream):
    """A request as in HTTP/1.1."""

    def answer(
        self, exchange: Exchange, status: int, headers: bytes, body: bytes | memoryview
    ) -> None:
        """Send it."""
        length = block([(b"content-length", str(len(body)).encode())])
        head = status_block(status) + lines_block(headers) + length
        if not body or exchange.method == "HEAD":
            self._channel.start(self, head, ends=True)
        else:
            self._channel.complete(self, head, bytes(body), b"")

    def refuse(self, status: int, message: str) -> None:
        """Answer with an error."""
        head = status_block(status) + lines_block(JSON_TYPE)
        self._channel.complete(self, head, orjson.dumps({"error": message}), b"")


class CallStream(Stream):
    """A call of gRPC with one message each way."""

    def __init__(self, channel: Channel, number: int, head: Head, most_bytes: int) -> None:
        super().__init__(channel, number, head, most_bytes + _PREFIX.size)
        self._compresses = False

    def _ask(self, body: bytes) -> None:
        if len(body) < _PREFIX.size:
            self._fail(_INTERNAL, "the call has no whole message")
            return
        flag, length = _PREFIX.unpack_from(body)
        if len(body) != _PREFIX.size + length:
            self._fail(_INTERNAL, "the call has more or less than one message")
            return
        message = self._plain(flag, body[_PREFIX.size :])
        if message is not None:
            super()._ask(message)

    def answer(
        self, exchange: Exchange, status: int, headers: bytes, body: bytes | memoryview
    ) -> None:
        """Send the message, or what went wrong."""
        if status != HTTPStatus.OK:
            self._channel.start(self, _CALL_HEAD + _failure(status, headers, body), ends=True)
            return
        head = _GZIP_HEAD if self._compresses else _CALL_HEAD
        self._channel.complete(self, head, self._framed(bytes(body)), _OK)

    def refuse(self, status: int, message: str) -> None:
        """Answer with an error."""
        self._fail(_GRPC_STATUS.get(status, _INTERNAL), message)

    def _fail(self, code: int, message: str) -> None:
        self._channel.start(self, _CALL_HEAD + _status(code, message), ends=True)

    def _plain(self, flag: int, message: bytes) -> bytes | None:
        """A message, decompressed; None where that was answered with an error."""
        if flag != _COMPRESSED:
            return message
        self._compresses = True
        bits = WINDOW_BITS.get(self._head.headers.get(b"grpc-encoding", b""))
        if bits is None:
            self._fail(_UNIMPLEMENTED, "messages are compressed with gzip or deflate")
            return None
        try:
            return inflate(message, bits, self.most_bytes)
        except InvalidArgumentError as error:
            self._fail(_RESOURCE_EXHAUSTED, str(error))
            return None

    def _framed(self, message: bytes) -> bytes:
        if not self._compresses:
            return _PREFIX.pack(0, len(message)) + message
        packed = deflate(message, WINDOW_BITS[b"gzip"])
        return _PREFIX.pack(_COMPRESSED, len(packed)) + packed


class SequenceStream(CallStream):
    """A call that streams both ways: a call for each message, answered in their order."""

    def __init__(self, channel: Channel, number: int, head: Head, streaming: Streaming) -> None:
        super().__init__(channel, number, head, streaming.most_bytes)
        self._streaming = streaming
        self._received = bytearray()
        # Exchanges under way in the order of their requests, each with the bytes it came in, and
        # the answers that are there.
        self._asked: deque[tuple[Exchange, int]] = deque()
        self._answers: dict[int, bytes] = {}
        self._started = False
        self._going = False

    def take(self, data: bytes) -> None:
        """Ask what is whole."""
        self._received += data
        self._go_on()

    def end(self) -> None:
        """End the answer once everything is answered."""
        self._go_on()

    def answer(
        self, exchange: Exchange, status: int, headers: bytes, body: bytes | memoryview
    ) -> None:
        """Send it once those before it are sent."""
        if status == HTTPStatus.OK:
            self._answers[id(exchange)] = self._streaming.answer(bytes(body))
        elif self._streaming.error is not None:
            _, message = _told(status, headers, body)
            message = message or f"the call failed with status {status}"
            self._answers[id(exchange)] = self._streaming.error(exchange.body, message)
        else:
            self._finish(_failure(status, headers, body))
            return
        while self._asked and id(self._asked[0][0]) in self._answers:
            answered, size = self._asked.popleft()
            self._begin()
            self._channel.send(self, self._framed(self._answers.pop(id(answered))), None)
            self._channel.received(self, size)
        self._go_on()

    def _go_on(self) -> None:
        # A handler may answer at once, which comes back here: the loop, not recursion, goes on.
        if self._going:
            return
        self._going = True
        while not self.lost and len(self._asked) < _IN_FLIGHT and self._ask_next():
            pass
        self._going = False
        if self.whole and not self.lost and not self._asked:
            self._finish(_OK if not self._received else _failure(500, b"", b""))

    def _ask_next(self) -> bool:
        """Have the next message answered; whether there was one."""
        if len(self._received) < _PREFIX.size:
            return False
        flag, length = _PREFIX.unpack_from(self._received)
        stop = _PREFIX.size + length
        if stop > self.most_bytes:
            self._fail(_RESOURCE_EXHAUSTED, f"a message is larger than {self.most_bytes} bytes")
            return False
        if len(self._received) < stop:
            return False
        message = self._plain(flag, bytes(self._received[_PREFIX.size : stop]))
        del self._received[:stop]
        if message is None:
            return False
        head = self._head
        exchange = Exchange(self, head.method, self._streaming.path, head.headers, message)
        self._asked.append((exchange, stop))
        self._channel.hand_over(exchange)
        return True

    def _begin(self) -> None:
        if not self._started:
            self._started = True
            self._channel.start(self, _GZIP_HEAD if self._compresses else _CALL_HEAD)

    def _finish(self, trailers: bytes) -> None:
        self.lost = True
        self._begin()
        self._channel.send(self, b"", trailers)

    def _fail(self, code: int, message: str) -> None:
        self._finish(_status(code, message))


def _status(code: int, message: str) -> bytes:
    """The trailers of a call that failed here; the text is plain ASCII."""
    return block([(b"grpc-status", str(code).encode()), (b"grpc-message", message.encode())])


def _headers(lines: bytes) -> Mapping[bytes, bytes]:
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n") if line)
    return {name: value for name, _, value in pairs}


def _told(status: int, lines: bytes, body: bytes | memoryview) -> tuple[int, str]:
    """The code and the text of a failure."""
    headers = _headers(lines)
    if b"lepton-grpc-status" not in headers:
        return _GRPC_STATUS.get(status, _INTERNAL), bytes(body[:1024]).decode(errors="replace")
    message = unquote_to_bytes(headers.get(b"lepton-grpc-message", b"")).decode(errors="replace")
    return int(headers[b"lepton-grpc-status"]), message


def _failure(status: int, lines: bytes, body: bytes | memoryview) -> bytes:
    """The trailers of a call that failed."""
    headers = _headers(lines)
    code, _ = _told(status, lines, body)
    fields = [(b"grpc-status", str(code).encode())]
    if message := headers.get(b"lepton-grpc-message"):
        fields.append((b"grpc-message", message))
    if details := headers.get(b"lepton-grpc-details"):
        fields.append((b"grpc-status-details-bin", details.rstrip(b"=")))
    return block(fields)
