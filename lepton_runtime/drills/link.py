"""A network link that can be cut: a TCP proxy of which a drill holds the switch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from lepton_runtime.cancellation import end

__all__ = ["Link", "open_link"]

_CHUNK_BYTES = 64 * 1024


class Link:
    """The way to one server. Made by `open_link`.

    A cut is that of a broken switch: connections stay open, and what was sent meanwhile arrives,
    late, once the link is whole again.
    """

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._whole = asyncio.Event()
        self._whole.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.address = ""

    def cut(self) -> None:
        """Let nothing through from now on."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._whole.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        try:
            await self._whole.wait()
            there, back = await asyncio.open_connection(self._host, self._port)
            try:
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump(reader, back))
                    pumps.create_task(self._pump(there, writer))
            finally:
                back.close()
        except* OSError:
            pass  # either end is gone
        finally:
            writer.close()
            self._pumps.discard(task)

    async def close(self) -> None:
        """End every connection."""
        for pump in list(self._pumps):
            await end(pump)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK_BYTES):
            await self._whole.wait()
            sink.write(chunk)
            await sink.drain()
        sink.close()


@contextlib.asynccontextmanager
async def open_link(target: str) -> AsyncGenerator[Link]:
    """A link to ``host:port``, at an address of its own on loopback."""
    link = Link(target)
    server = await asyncio.start_server(link.serve, "127.0.0.1", 0)
    link.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield link
    finally:
        server.close()
        await link.close()
