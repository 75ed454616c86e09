"""Envoy's administration, over a socket that only this user can open."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from lepton_ai.errors import UnavailableError

__all__ = ["Admin", "Sample"]

_TIMEOUT_S = 2.0
_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_ACTIVE_REQUESTS = "http.clients.downstream_rq_active"


class Sample(NamedTuple):
    """One line of Prometheus' text format."""

    name: str
    labels: dict[str, str]
    value: float


class Admin:
    """Asks one Envoy.

    Args:
        socket: Its Unix socket.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def is_ready(self) -> bool:
        """Whether it has read its first documents and takes requests."""
        try:
            status, _ = await self._request("GET", "/ready")
        except UnavailableError:
            return False
        return status == 200

    async def begin_drain(self) -> None:
        """Ask clients to leave: connections are closed as their requests end.

        Raises:
            UnavailableError: It does not answer.
        """
        await self._request("POST", "/drain_listeners?graceful&skip_exit")

    async def active_requests(self) -> int:
        """How many requests of clients are in progress.

        Raises:
            UnavailableError: It does not answer.
        """
        _, answer = await self._request("GET", f"/stats?filter=^{_ACTIVE_REQUESTS}$")
        # The body comes in chunks; a number this short is in one.
        found = re.search(rf"^{_ACTIVE_REQUESTS}: (\d+)", answer, re.MULTILINE)
        return int(found[1]) if found else 0

    async def samples(self, names: str) -> list[Sample]:
        """Counters, gauges, texts and the sums of histograms.

        Args:
            names: A regular expression for their names, as Envoy has them.

        Raises:
            UnavailableError: It does not answer.
        """
        target = f"/stats/prometheus?text_readouts&usedonly&filter={quote(names, safe='')}"
        _, answer = await self._request("GET", target)
        return [
            Sample(found[1], dict(_LABEL.findall(found[2])), float(found[3]))
            for found in _SAMPLE.finditer(_joined(answer))
        ]

    async def _request(self, method: str, target: str) -> tuple[int, str]:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    head = f"{method} {target} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n"
                    writer.write(head.encode())
                    answer = (await reader.read()).decode()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise UnavailableError("Envoy does not answer") from error
        return int(answer.split(" ", 2)[1]), answer


def _joined(answer: str) -> str:
    """The body of an answer that came in chunks: https://www.rfc-editor.org/rfc/rfc9112#section-7.1"""
    rest = answer.partition("\r\n\r\n")[2]
    parts: list[str] = []
    while rest:
        size, _, rest = rest.partition("\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        rest = rest[length + 2 :]
    return "".join(parts)
