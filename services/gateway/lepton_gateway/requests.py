"""A request of a client as Envoy hands it over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Headers", "Receive", "Request", "Scope", "Send", "read_request"]

Headers = list[tuple[str, str]]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Request(NamedTuple):
    """As it came from Envoy."""

    method: str
    target: str
    headers: Headers
    body: bytes


async def read_request(scope: Scope, receive: Receive) -> Request:
    """A request as a whole. Envoy sees to its size."""
    body, more = b"", True
    while more:
        part = await receive()
        body += part.get("body", b"")
        more = part.get("more_body", False)
    target = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    return Request(scope["method"], target, headers, body)
