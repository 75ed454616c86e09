"""Posts to addresses that users chose, and to none that only the cluster should reach."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from lepton_ai.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError

__all__ = ["Target", "check_url", "is_public", "post"]

_MOST_URL_BYTES = 2048
_MOST_ANSWER_BYTES = 64 * 1024
_PORTS = {"http": 80, "https": 443}
# IPv4 in IPv6 by a translator (RFC 6052): what it leads to cannot be told from here.
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Target:
    """Where a URL leads."""

    secure: bool
    host: str
    port: int
    path: str
    authority: str


def check_url(url: str) -> Target:
    """Where a webhook's URL leads.

    Raises:
        InvalidArgumentError: It is no plain http or https URL.
    """
    problem = InvalidArgumentError(
        f"{url[:100]!r} is no address for a webhook", hint="such as https://example.com/hook"
    )
    if len(url) > _MOST_URL_BYTES or not url.isascii() or not url.isprintable() or " " in url:
        raise problem
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise problem from None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise problem
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    port = port or _PORTS[parts.scheme]
    return Target(parts.scheme == "https", parts.hostname, port, path, parts.netloc)


def is_public(address: str) -> bool:
    """Whether anyone on the Internet is meant: no loopback, no private net, no cloud metadata."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _TRANSLATED or ip.sixtofour or ip.teredo:
            return False
        ip = ip.ipv4_mapped or ip
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def post(
    url: str, headers: Mapping[str, str], body: bytes, *, private: bool, timeout_s: float
) -> int:
    """Post once, follow nothing, and return the status of the answer.

    The name is resolved here, and that very address is connected to: it cannot change in between.

    Args:
        url: Where to.
        headers: Sent with it.
        body: What is sent.
        private: Whether loopback and private addresses are allowed.
        timeout_s: For all of it.

    Raises:
        InvalidArgumentError: It is no address, or a private one.
        UnavailableError: It cannot be reached, or does not speak HTTP.
        DeadlineExceededError: There was no answer in time.
    """
    target = check_url(url)
    try:
        async with asyncio.timeout(timeout_s):
            address = await _address(target, private=private)
            return await _exchanged(target, address, _message(target, headers, body))
    except TimeoutError:
        raise DeadlineExceededError(f"no answer within {timeout_s:g} s") from None
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise UnavailableError(f"{target.authority} cannot be reached: {error}") from None


async def _address(target: Target, *, private: bool) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(
        target.host,
        target.port,
        type=1,  # a stream
    )
    addresses = [str(entry[4][0]) for entry in found]
    if not private and not all(is_public(address) for address in addresses):
        raise InvalidArgumentError(
            f"{target.host!r} is a private address",
            hint="an operator can allow it: LEPTON_WEBHOOKS_PRIVATE=true",
        )
    return addresses[0]


async def _exchanged(target: Target, address: str, message: bytes) -> int:
    context = ssl.create_default_context() if target.secure else None
    reader, writer = await asyncio.open_connection(
        address,
        target.port,
        ssl=context,
        server_hostname=target.host if context else None,
        limit=_MOST_ANSWER_BYTES,
    )
    try:
        writer.write(message)
        await writer.drain()
        version, _, rest = (await reader.readuntil(b"\r\n")).partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise UnavailableError(f"{target.authority} does not speak HTTP")
        return int(rest[:3])
    finally:
        writer.close()


def _message(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"host: {target.authority}",
        "user-agent: lepton",
        "connection: close",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + body
