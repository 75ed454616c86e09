"""Bodies and messages that are compressed, as HTTP and gRPC name it: ``gzip`` and ``deflate``."""

from __future__ import annotations

import zlib
from typing import Final

from lepton_ai.errors import InvalidArgumentError

__all__ = ["WINDOW_BITS", "deflate", "inflate"]

WINDOW_BITS: Final = {b"gzip": 31, b"deflate": 15}
"""What tells zlib of an encoding, by its name."""


def inflate(packed: bytes, window_bits: int, max_bytes: int) -> bytes:
    """Decompress at most `max_bytes`.

    Raises:
        InvalidArgumentError: It is no such compressed stream, or holds more.
    """
    stream = zlib.decompressobj(window_bits)
    try:
        plain = stream.decompress(packed, max_bytes)
    except zlib.error as error:
        raise InvalidArgumentError(f"what is compressed is broken: {error}") from None
    if not stream.eof:
        raise InvalidArgumentError(
            "what is compressed is not whole, or too large",
            hint=f"uncompressed it may have {max_bytes} bytes",
        )
    return plain


def deflate(plain: bytes | memoryview, window_bits: int) -> bytes:
    """Compress, fast rather than well."""
    stream = zlib.compressobj(zlib.Z_BEST_SPEED, zlib.DEFLATED, window_bits)
    return stream.compress(plain) + stream.flush()
