"""A process that has imported what trainers need, and of which each is a copy."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing, suppress

from lepton_ai.errors import UnavailableError
from lepton_runtime.processes import leashed
from lepton_worker.child import MAX_LINE_BYTES, Child
from lepton_worker.forking import FORK

__all__ = ["Template", "open_template"]

_WARM_S = 120.0
_BORN_S = 30.0


class Template:
    """Such a process, ready. Made by `open_template`."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control

    async def ended(self) -> int:
        """Wait for its end; returns its exit status."""
        return await self._process.wait()

    @asynccontextmanager
    async def copy(self) -> AsyncGenerator[Child]:
        """A copy of it, which is ended at the end.

        Raises:
            UnavailableError: There is none.
        """
        talk, errors = socket.socketpair(), socket.socketpair()
        heard, told = await asyncio.open_unix_connection(sock=talk[0], limit=MAX_LINE_BYTES)
        printed, unused = await asyncio.open_unix_connection(sock=errors[0])
        with closing(told), closing(unused):
            with talk[1], errors[1]:
                self._ask([talk[1].fileno(), errors[1].fileno()])
            child = Child(_Copy(await _pid(heard), told, heard, printed))
            try:
                yield child
            finally:
                await child.kill()

    def _ask(self, streams: list[int]) -> None:
        try:
            socket.send_fds(self._control, [FORK], streams)
        except OSError as error:
            raise UnavailableError("what trainers are copies of has ended") from error


class _Copy:
    """A process that was forked by another child of ours: like `asyncio.subprocess.Process`."""

    def __init__(
        self, pid: int, stdin: StreamWriter, stdout: StreamReader, stderr: StreamReader
    ) -> None:
        self.pid, self.stdin, self.stdout, self.stderr = pid, stdin, stdout, stderr
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:
            raise UnavailableError("the trainer died at once") from None
        asyncio.get_running_loop().add_reader(self._handle, self._has_ended)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    async def wait(self) -> int:
        """Wait for its end. With which status is for its parent to know: this answers 0."""
        await self._ended.wait()
        return 0

    def _has_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self.returncode = 0
        self._ended.set()

    def _signal(self, number: signal.Signals) -> None:
        # It may have ended already, before the event loop has come to know.
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)


async def _pid(heard: StreamReader) -> int:
    """The first line of a copy: its process id."""
    try:
        async with asyncio.timeout(_BORN_S):
            return int(await heard.readline())
    except (TimeoutError, ValueError, OSError) as error:
        raise UnavailableError("no trainer was started") from error


@asynccontextmanager
async def open_template(module: str, environment: Mapping[str, str]) -> AsyncGenerator[Template]:
    """Start a module that calls `go_on_as_child`, and wait until it is there; it dies with us.

    Raises:
        UnavailableError: It does not get there.
    """
    control, theirs = socket.socketpair()
    control.setblocking(False)
    with control:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *leashed([sys.executable, "-m", module]),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, **environment},
            )
        try:
            async with asyncio.timeout(_WARM_S):
                if not await asyncio.get_running_loop().sock_recv(control, 1):
                    raise UnavailableError("what trainers are copies of does not start")
            yield Template(process, control)
        except TimeoutError:
            raise UnavailableError(f"no trainer was ready within {_WARM_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
