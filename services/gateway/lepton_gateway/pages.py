"""Serves the gateway's own pages to Envoy, on loopback."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator

import uvicorn

from lepton_gateway.queued.api import QueuedApi

__all__ = ["PageServer"]


class PageServer(uvicorn.Server):
    """uvicorn as a part of a service that handles signals itself.

    Args:
        app: What to serve.
    """

    def __init__(self, app: QueuedApi) -> None:
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
