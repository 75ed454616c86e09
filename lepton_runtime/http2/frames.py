"""Frames and header blocks as bytes (RFC 9113, section 6; RFC 7541, section 6)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "FRAME",
    "FRAME_BYTES",
    "GOAWAY",
    "HAS_PRIORITY",
    "HEADERS",
    "PADDED",
    "PING",
    "PRIORITY",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "block",
    "frame",
    "goaway",
    "lines_block",
    "reset",
    "status_block",
    "window_update",
]

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

# Length (16 bits and 8), type, flags, stream.
FRAME: Final = struct.Struct(">HBBBI")
FRAME_BYTES: Final = FRAME.size
_NUMBER: Final = struct.Struct(">I")
_GOAWAY: Final = struct.Struct(">II")
# Of HPACK's static table: whole fields for statuses.
_INDEXED_STATUS: Final = {200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}
_STATUS_NAME: Final = 8
_LITERAL: Final = b"\x00"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame."""
    length = len(payload)
    return FRAME.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def reset(stream: int, code: int) -> bytes:
    """Ends a stream."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def window_update(stream: int, size: int) -> bytes:
    """Lets the peer send so many more bytes."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def goaway(last_stream: int, code: int) -> bytes:
    """Tells that no stream after `last_stream` is served."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream, code))


@lru_cache(64)
def status_block(status: int) -> bytes:
    """The first field of an answer."""
    if status in _INDEXED_STATUS:
        return bytes([0x80 | _INDEXED_STATUS[status]])
    # Literal, without indexing, named by an index of the static table.
    return bytes([_STATUS_NAME]) + _text(str(status).encode())


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Fields as literals that no table remembers: what was sent does not depend on order."""
    return b"".join(_LITERAL + _text(name) + _text(value) for name, value in fields)


@lru_cache(256)
def lines_block(lines: bytes) -> bytes:
    """Header lines of HTTP/1.1 as fields; what only an HTTP/1.1 connection has is left out."""
    pairs = [line.partition(b":") for line in lines.split(b"\r\n") if line]
    fields = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    return block((name, value) for name, value in fields if name != b"connection")


def _text(value: bytes) -> bytes:
    return _integer(len(value)) + value


def _integer(value: int) -> bytes:
    """In seven bits, or more bytes; the eighth bit says that no Huffman code is used."""
    if value < 0x7F:
        return bytes([value])
    encoded, value = bytearray([0x7F]), value - 0x7F
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
