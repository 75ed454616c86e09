"""Serves what the gateway answers itself to Envoy, on loopback."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator

import uvicorn

__all__ = ["PageServer"]


class PageServer(uvicorn.Server):
    """uvicorn as a part of a service that handles signals itself.

    Args:
        app: An ASGI application.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)

    @property
    def port(self) -> int:
        """Where it listens: from the beginning, so that no request comes too early."""
        return self._socket.getsockname()[1]

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the service."""
        yield

    async def run_until_stopped(self) -> None:
        """Serve until `should_exit` is set."""
        await self.serve(sockets=[self._socket])
