"""Heads of requests, decoded.

HPACK is stateful and slow to decode, but a client that asks the same again and again sends the
same bytes again, and as long as the table has not changed they mean the same: then it is a look-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from hpack import Decoder, HPACKError
from hpack.table import HeaderTable

__all__ = ["Head", "HeadError", "Heads"]

# How many different heads of a connection are remembered.
_REMEMBERED: Final = 64
_TABLE_SIZE_UPDATE, _TABLE_SIZE_MASK = 0x20, 0xE0


class HeadError(Exception):
    """The block cannot be decoded: the connection's state is lost."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says before its body. It may belong to several requests: never change it.

    Attributes:
        method: Such as ``"POST"``.
        path: Without the query.
        headers: Names in lower case, no pseudo-headers; of a repeated one the last value.
        is_grpc: Whether the body is messages of gRPC.
    """

    method: str
    path: str
    headers: dict[bytes, bytes]
    is_grpc: bool


class _Table(HeaderTable):
    """Counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)


class Heads:
    """Decodes the header blocks of one connection, in their order.

    Args:
        max_bytes: Of all names and values of a block.
    """

    def __init__(self, max_bytes: int) -> None:
        self._decoder = Decoder(max_bytes)
        self._table = _Table()
        self._decoder.header_table = self._table
        self._known: dict[bytes, Head] = {}

    def decode(self, block: bytes) -> Head:
        """What a block says.

        Raises:
            HeadError: It says nothing, or too much.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        changes = self._table.changes
        head = self._decoded(block)
        resized = block[:1] and block[0] & _TABLE_SIZE_MASK == _TABLE_SIZE_UPDATE
        if resized or self._table.changes != changes or len(self._known) >= _REMEMBERED:
            self._known.clear()
        if not resized and self._table.changes == changes:
            self._known[block] = head
        return head

    def _decoded(self, block: bytes) -> Head:
        try:
            fields = cast("list[tuple[bytes, bytes]]", self._decoder.decode(block, raw=True))
        except HPACKError as error:
            raise HeadError(str(error)) from None
        headers = {name: value for name, value in fields if name[:1] != b":"}
        pseudo = {name: value for name, value in fields if name[:1] == b":"}
        if b":authority" in pseudo:
            headers.setdefault(b"host", pseudo[b":authority"])
        return Head(
            pseudo.get(b":method", b"").decode("latin-1"),
            pseudo.get(b":path", b"").partition(b"?")[0].decode("latin-1"),
            headers,
            headers.get(b"content-type", b"").startswith(b"application/grpc"),
        )
