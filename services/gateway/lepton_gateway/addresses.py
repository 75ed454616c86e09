"""Names of hosts become IP addresses before Envoy, which takes no names in lists of endpoints."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import ip_address

import structlog

__all__ = ["resolve"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.gateway")
_TIMEOUT_S = 2.0


async def resolve(addresses: Iterable[str]) -> dict[str, str]:
    """host:port with an IP address for each host:port. Those that have none are left out."""
    wanted = sorted(set(addresses))
    answers = await asyncio.gather(*(_resolve_one(address) for address in wanted))
    return {
        address: answer
        for address, answer in zip(wanted, answers, strict=True)
        if answer is not None
    }


async def _resolve_one(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    if _is_ip(host.strip("[]")):
        return address
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, family=socket.AF_INET
            )
    except (OSError, TimeoutError) as error:
        _log.warning("address_unknown", address=address, reason=str(error))
        return None
    return f"{found[0][4][0]}:{port}"


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
