"""A child process that is told and tells in JSON, one object a line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import orjson
import structlog

from lepton_runtime.processes import leashed

__all__ = ["MAX_LINE_BYTES", "Child", "Process", "start_child"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.child")
MAX_LINE_BYTES = 16 * 1024 * 1024
_PRINTED_BYTES = 64 * 1024
_STOP_S = 5.0


class Process(Protocol):
    """What is needed of `asyncio.subprocess.Process`."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        """Where it hears."""
        ...

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """Where it tells."""
        ...

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        """Where it prints."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit status, None before its end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    async def wait(self) -> int:
        """Wait for its end."""
        ...


class Child:
    """A running child. Made by `start_child`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Send one message; to a child that has ended, in vain."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(orjson.dumps(message) + b"\n")
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            _log.info("child has ended", pid=self.pid)

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """What it tells, until it ends."""
        assert self._process.stdout is not None
        while line := await self._line(self._process.stdout):
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError:
                _log.warning("child said no JSON", pid=self.pid)
                continue
            yield event

    @staticmethod
    async def _line(stdout: asyncio.StreamReader) -> bytes:
        try:
            return await stdout.readline()
        except ConnectionResetError:  # it ended before it had heard everything
            return b""

    async def printed(self) -> AsyncIterator[str]:
        """Lines of its standard error, until it ends; one that is very long comes in pieces."""
        assert self._process.stderr is not None
        rest = b""
        while part := await self._process.stderr.read(_PRINTED_BYTES):
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > _PRINTED_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                yield line.decode(errors="replace").rstrip()
        if rest:
            yield rest.decode(errors="replace").rstrip()

    async def ended(self) -> int:
        """Wait for its end; returns its exit status."""
        return await self._process.wait()

    async def kill(self) -> None:
        """End it at once."""
        if self.is_alive:
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end, by force when asking does not help."""
        if self.is_alive:
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


async def start_child(
    module: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Child:
    """Start a module of ours, which dies with this process."""
    process = await asyncio.create_subprocess_exec(
        *leashed([sys.executable, "-m", module, *arguments]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=MAX_LINE_BYTES,
        env={**os.environ, **(environment or {})},
    )
    return Child(process)
