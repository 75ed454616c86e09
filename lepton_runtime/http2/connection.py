"""A connection that speaks HTTP/2 to a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from lepton_runtime.http import HTTP2_PREFACE, Exchange, HttpServer
from lepton_runtime.http2 import frames
from lepton_runtime.http2.frames import END_HEADERS, END_STREAM, FRAME, FRAME_BYTES, PADDED
from lepton_runtime.http2.heads import Head, HeadError, Heads
from lepton_runtime.http2.streams import (
    CallStream,
    PlainStream,
    SequenceStream,
    Stream,
    Streaming,
)

__all__ = ["Http2Connection", "speak"]

_FRAME_LIMIT: Final = 16 * 1024
_FIRST_WINDOW: Final = 65_535
_LARGEST_WINDOW: Final = 2**31 - 1
_MOST_STREAMS: Final = 1024
# The connection's window is as large as can be; it is filled up again after so many bytes.
_FILL_UP_BYTES: Final = 4 * 1024 * 1024
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 0x4, 0x5
_NO_ERROR, _PROTOCOL_ERROR, _FLOW_CONTROL_ERROR, _FRAME_SIZE_ERROR = 0x0, 0x1, 0x3, 0x6
_REFUSED_STREAM, _COMPRESSION_ERROR, _ENHANCE_YOUR_CALM = 0x7, 0x9, 0xB


def speak(streaming: Mapping[str, Streaming]) -> partial[Http2Connection]:
    """What `HttpServer` makes of a connection that begins with HTTP/2's preface.

    Args:
        streaming: Calls of gRPC that stream, by path.
    """
    return partial(Http2Connection, streaming)


class _BrokenError(Exception):
    """The client breaks the protocol: the connection ends with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Http2Connection(asyncio.Protocol):
    """Frames in, exchanges to the handler, frames out.

    What is written while a piece of input or a batch of answers is worked off leaves in one write.

    Args:
        streaming: Calls of gRPC that stream, by path.
        server: Has the handler and the limits.
        transport: The connection, before any of its input.
    """

    def __init__(
        self,
        streaming: Mapping[str, Streaming],
        server: HttpServer,
        transport: asyncio.Transport,
    ) -> None:
        self._streaming = streaming
        self._server = server
        self._transport = transport
        self._limits = server.limits
        self._heads = Heads(server.limits.head_bytes)
        self._streams: dict[int, Stream] = {}
        self._rest = b""
        self._started = False
        self._out: list[bytes | memoryview] = []
        self._flushing = False
        self._last = 0
        # A header block that goes on in the next frame: its stream, flags and parts.
        self._block: tuple[int, int, bytearray] | None = None
        self._window = _FIRST_WINDOW
        self._stream_window = _FIRST_WINDOW
        self._frame_limit = _FRAME_LIMIT
        self._unreported = 0
        self._leaving = False
        self._active_s = time.monotonic()
        self._first_window = min(
            server.limits.body_bytes + 2 * server.limits.head_bytes, _LARGEST_WINDOW
        )
        self._kinds = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_continuation,
        }
        server.connections.add(self)

    # What the transport calls.

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what was held; exchanges under way are `gone` from here on."""
        self._server.connections.discard(self)
        for stream in list(self._streams.values()):
            self._drop(stream)

    def data_received(self, data: bytes) -> None:
        """Work off the frames that are whole."""
        if self._rest:
            data = self._rest + data
        position = 0 if self._started else self._begin(data)
        try:
            while len(data) - position >= FRAME_BYTES:
                high, low, kind, flags, number = FRAME.unpack_from(data, position)
                length = high << 8 | low
                start = position + FRAME_BYTES
                if length > _FRAME_LIMIT:
                    raise _BrokenError(_FRAME_SIZE_ERROR)
                if len(data) < start + length:
                    break
                position = start + length
                self._take(kind, flags, number & _LARGEST_WINDOW, data[start:position])
        except _BrokenError as error:
            self._break(error.code)
            return
        self._rest = data[position:]
        self._flush()

    def pause_writing(self) -> None:
        """Answers pile up: take no more requests."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Answers went out: go on."""
        self._transport.resume_reading()

    # What the server calls.

    def close_if_idle(self) -> None:
        """Take no further request; close once all are answered."""
        if not self._leaving:
            self._leaving = True
            self._transport.write(frames.goaway(self._last, _NO_ERROR))
        if not self._streams:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, answered or not."""
        self._transport.abort()

    def expire(self, now_s: float) -> None:
        """Give up requests that arrive too slowly, and a connection that nobody uses."""
        if not self._streams and now_s - self._active_s > self._limits.idle_timeout_s:
            self._transport.close()
        limit_s = self._limits.receive_timeout_s
        for stream in list(self._streams.values()):
            slow = not stream.whole and now_s - stream.began_s > limit_s
            if slow and not isinstance(stream, SequenceStream):
                self._refuse(stream, 408, f"no whole request in {limit_s:g} s")
        self._flush()

    # What streams call.

    def start(self, stream: Stream, head: bytes, *, ends: bool = False) -> None:
        """Send the answer's head."""
        if stream.number in self._streams:
            flags = END_HEADERS | END_STREAM if ends else END_HEADERS
            self._out.append(frames.frame(frames.HEADERS, flags, stream.number, head))
            if ends:
                self._finish(stream)

    def send(self, stream: Stream, data: bytes | memoryview, trailers: bytes | None) -> None:
        """Send a part of the body as far as the client takes it, the rest when it does.

        Args:
            stream: Whose answer has begun.
            data: The part.
            trailers: The block that ends the answer, empty to end it without; None to go on.
        """
        if stream.number not in self._streams:
            return
        stream.waiting.append((memoryview(data), trailers))
        self._push(stream)
        self._flush_soon()

    def complete(self, stream: Stream, head: bytes, data: bytes, trailers: bytes) -> None:
        """Send a whole answer: `start` and `send` at once, which it mostly can be."""
        size, number = len(data), stream.number
        if number not in self._streams:
            return
        if size > min(self._window, stream.window, self._frame_limit):
            self.start(stream, head)
            self.send(stream, data, trailers)
            return
        self._window -= size
        self._out += (
            FRAME.pack(len(head) >> 8, len(head) & 0xFF, frames.HEADERS, END_HEADERS, number),
            head,
            FRAME.pack(size >> 8, size & 0xFF, frames.DATA, 0 if trailers else END_STREAM, number),
            data,
        )
        self._finish_with(stream, trailers)
        self._flush_soon()

    def received(self, stream: Stream, size: int) -> None:
        """Let the client send so much more on a stream that goes on."""
        self._release(stream, size)
        if stream.number in self._streams and not stream.whole:
            self._out.append(frames.window_update(stream.number, size))

    def hand_over(self, exchange: Exchange) -> None:
        """Have an exchange answered."""
        self._server.handler(exchange)

    # Frames.

    def _begin(self, data: bytes) -> int:
        """Say what is taken; the position behind the preface."""
        self._started = True
        settings = b"".join(
            key.to_bytes(2, "big") + value.to_bytes(4, "big")
            for key, value in (
                (0x3, _MOST_STREAMS),
                (_INITIAL_WINDOW_SIZE, self._first_window),
                (0x6, self._limits.head_bytes),
            )
        )
        self._out.append(frames.frame(frames.SETTINGS, 0, 0, settings))
        self._out.append(frames.window_update(0, _LARGEST_WINDOW - _FIRST_WINDOW))
        return len(HTTP2_PREFACE)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise _BrokenError(_PROTOCOL_ERROR)
        take = self._kinds.get(kind)
        if take is not None:  # What is unknown is to be ignored.
            take(flags, number, payload)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        self._unreported += len(payload)
        if self._unreported >= _FILL_UP_BYTES:
            self._out.append(frames.window_update(0, self._unreported))
            self._unreported = 0
        stream = self._streams.get(number)
        if stream is None:  # It was refused or reset, and the client did not know yet.
            if number > self._last or number == 0:
                raise _BrokenError(_PROTOCOL_ERROR)
            return
        if stream.whole:
            raise _BrokenError(_PROTOCOL_ERROR)
        data = _unpadded(payload, flags) if flags & PADDED else payload
        if not self._admits(stream, len(data)):
            return
        stream.held_bytes += len(data)
        self._server.buffered_bytes += len(data)
        stream.take(data)
        if flags & END_STREAM:
            self._end(stream)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = _unpadded(payload, flags)
        if flags & frames.HAS_PRIORITY:
            payload = payload[5:]
        if flags & END_HEADERS:
            self._head(flags, number, payload)
        else:
            self._block = (number, flags, bytearray(payload))

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise _BrokenError(_PROTOCOL_ERROR)
        _, first_flags, parts = self._block
        parts += payload
        if len(parts) > self._limits.head_bytes:
            raise _BrokenError(_ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            self._block = None
            self._head(first_flags, number, bytes(parts))

    def _head(self, flags: int, number: int, block: bytes) -> None:
        try:
            head = self._heads.decode(block)
        except HeadError:
            raise _BrokenError(_COMPRESSION_ERROR) from None
        known = self._streams.get(number)
        if known is not None:  # trailers
            if known.whole or not flags & END_STREAM:
                raise _BrokenError(_PROTOCOL_ERROR)
            self._end(known)
            return
        if number <= self._last or number % 2 == 0:
            raise _BrokenError(_PROTOCOL_ERROR)
        self._last = number
        if self._leaving or len(self._streams) >= _MOST_STREAMS:
            self._out.append(frames.reset(number, _REFUSED_STREAM))
            return
        stream = self._stream(number, head)
        stream.window = self._stream_window
        self._streams[number] = stream
        stream.began_s = self._active_s = time.monotonic()
        if flags & END_STREAM:
            self._end(stream)

    def _stream(self, number: int, head: Head) -> Stream:
        if not head.is_grpc:
            return PlainStream(self, number, head, self._limits.body_bytes)
        if (streaming := self._streaming.get(head.path)) is not None:
            return SequenceStream(self, number, head, streaming)
        return CallStream(self, number, head, self._limits.body_bytes)

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            self._drop(stream)
        elif number > self._last or number == 0:
            raise _BrokenError(_PROTOCOL_ERROR)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) % 6:
            raise _BrokenError(_FRAME_SIZE_ERROR)
        if flags & frames.ACK:
            return
        for at in range(0, len(payload), 6):
            key = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if key == _INITIAL_WINDOW_SIZE:
                self._resize_windows(value)
            elif key == _MAX_FRAME_SIZE:
                self._frame_limit = min(max(value, _FRAME_LIMIT), 2**24 - 1)
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))

    def _resize_windows(self, size: int) -> None:
        if size > _LARGEST_WINDOW:
            raise _BrokenError(_FLOW_CONTROL_ERROR)
        change, self._stream_window = size - self._stream_window, size
        for stream in list(self._streams.values()):
            stream.window += change
            self._push(stream)

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise _BrokenError(_PROTOCOL_ERROR)

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) != 8:
            raise _BrokenError(_FRAME_SIZE_ERROR)
        if not flags & frames.ACK:
            self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _BrokenError(_FRAME_SIZE_ERROR)
        size = int.from_bytes(payload, "big") & _LARGEST_WINDOW
        if number == 0:
            self._window += size
            if size == 0 or self._window > _LARGEST_WINDOW:
                raise _BrokenError(_FLOW_CONTROL_ERROR)
            for stream in list(self._streams.values()):
                self._push(stream)
        elif (stream := self._streams.get(number)) is not None:
            stream.window += size
            self._push(stream)

    # Streams.

    def _end(self, stream: Stream) -> None:
        stream.whole = True
        stream.end()

    def _admits(self, stream: Stream, size: int) -> bool:
        if stream.held_bytes + size > stream.most_bytes:
            self._refuse(stream, 413, f"the body is larger than {stream.most_bytes} bytes")
            return False
        if self._server.buffered_bytes + size > self._limits.buffered_bytes:
            self._refuse(stream, 503, "the server holds as many requests as it can; try again")
            return False
        return True

    def _refuse(self, stream: Stream, status: int, message: str) -> None:
        stream.refuse(status, message)
        self._out.append(frames.reset(stream.number, _NO_ERROR))
        self._drop(stream)

    def _push(self, stream: Stream) -> None:
        """Send what waits, as far as the windows allow."""
        while stream.waiting:
            data, trailers = stream.waiting[0]
            size = min(len(data), self._window, stream.window, self._frame_limit)
            if size <= 0 < len(data):
                return
            last = size == len(data)
            self._put_data(stream, data[:size], ends=last and trailers == b"")
            if not last:
                stream.waiting[0] = (data[size:], trailers)
                continue
            stream.waiting.popleft()
            if trailers is not None:
                self._finish_with(stream, trailers)

    def _put_data(self, stream: Stream, data: memoryview, *, ends: bool) -> None:
        size = len(data)
        self._window -= size
        stream.window -= size
        if size or ends:
            flags = END_STREAM if ends else 0
            head = FRAME.pack(size >> 8, size & 0xFF, frames.DATA, flags, stream.number)
            self._out += (head, data)

    def _finish_with(self, stream: Stream, trailers: bytes) -> None:
        if trailers:
            flags = END_HEADERS | END_STREAM
            self._out.append(frames.frame(frames.HEADERS, flags, stream.number, trailers))
        self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """The answer has been sent; a client that still sends its request need not go on."""
        if not stream.whole:
            self._out.append(frames.reset(stream.number, _NO_ERROR))
        self._drop(stream)
        if self._leaving and not self._streams:
            self._flush()
            self._transport.close()

    def _drop(self, stream: Stream) -> None:
        stream.lost = True
        self._streams.pop(stream.number, None)
        self._release(stream, stream.held_bytes)

    def _release(self, stream: Stream, size: int) -> None:
        size = min(size, stream.held_bytes)
        stream.held_bytes -= size
        self._server.buffered_bytes -= size

    # The way out.

    def _flush_soon(self) -> None:
        """At once where nothing else is under way, else with what else is answered now."""
        if not self._streams:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._server.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._out:
            out, self._out = self._out, []
            self._transport.write(b"".join(out))

    def _break(self, code: int) -> None:
        self._out.append(frames.goaway(self._last, code))
        self._flush()
        self._transport.close()


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _BrokenError(_PROTOCOL_ERROR)
    return payload[1 : len(payload) - payload[0]]
