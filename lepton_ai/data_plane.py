"""Where the bytes of objects are taken and given: storage nodes over HTTP/1.1.

A client knows one or more doors, which take any request, and learns with an object which nodes
have its chunks. Where it can reach those, it asks them straight; otherwise a door fetches for it.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Mapping, Sequence

from lepton_ai.errors import DeadlineExceededError, LeptonError, UnavailableError
from lepton_ai.http import HttpAnswer, HttpClient

__all__ = ["DataPlane"]

# Small objects by the thousand are many requests at once.
_CONNECTIONS = 32
_ROUNDS = 3
_PAUSE_S = 0.2
_SHUNNED_S = 5.0
_UNREACHED = (UnavailableError, DeadlineExceededError)


class DataPlane:
    """Requests to whichever storage node answers.

    Args:
        doors: ``host:port`` of what takes any request: the gateway, or storage nodes.
        token: This client's key.
        tls: What to show and trust; None for plain text.
        direct: Whether nodes that are named as having a chunk can be reached from here.
    """

    def __init__(
        self, doors: Sequence[str], token: str, tls: ssl.SSLContext | None, *, direct: bool
    ) -> None:
        self._doors = tuple(doors)
        self._token = token
        self._tls = tls
        self._direct = direct
        self._clients: dict[str, HttpClient] = {}
        self._shunned_until: dict[str, float] = {}
        self._turn = itertools.count()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | bytearray | memoryview = b"",
        *,
        near: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> HttpAnswer:
        """Ask the nodes of `near` first, then the doors, until one answers.

        Every request may be sent twice, so what it asks for must be the same done twice.

        Raises:
            LeptonError: What the answer says.
            UnavailableError: Nobody answers, also not after some pauses.
        """
        failure: LeptonError = UnavailableError("no storage node is known")
        for left in reversed(range(_ROUNDS)):
            for address in self._order(near):
                try:
                    return await self._client(address).request(
                        method, path, body, headers=headers, timeout_s=timeout_s
                    )
                except _UNREACHED as error:
                    self._shunned_until[address] = time.monotonic() + _SHUNNED_S
                    failure = error
            if left:
                await asyncio.sleep(_PAUSE_S)
        raise failure

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            client.close()

    def _order(self, near: Sequence[str]) -> list[str]:
        """Addresses to try; those that did not answer lately come last."""
        turn = next(self._turn) % max(len(self._doors), 1)
        doors = (*self._doors[turn:], *self._doors[:turn])
        addresses = dict.fromkeys((*near, *doors) if self._direct else doors)
        now = time.monotonic()
        return sorted(addresses, key=lambda address: self._shunned_until.get(address, 0.0) > now)

    def _client(self, address: str) -> HttpClient:
        if address not in self._clients:
            self._clients[address] = HttpClient(address, self._token, self._tls, _CONNECTIONS)
        return self._clients[address]
