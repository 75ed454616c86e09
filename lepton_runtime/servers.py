"""Real etcd and nats-server as child processes: for `lepton up` and for tests."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from lepton_ai.errors import UnavailableError
from lepton_runtime.processes import find_program, free_port, leashed

__all__ = ["ServerProcess", "start_etcd", "start_nats"]

_READY_S = 15.0
_STOP_S = 5.0
_POLL_S = 0.05


@dataclass
class ServerProcess:
    """A server and where it answers (``host:port``). `restart` keeps its port and data."""

    name: str
    address: str
    arguments: list[str]
    log_file: Path
    process: asyncio.subprocess.Process

    async def stop(self) -> None:
        """End it, by force when asking does not help."""
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        await self.process.wait()

    async def start_again(self) -> None:
        """Start it anew on the same port and data."""
        self.process = await _spawn(self.arguments, self.log_file)
        await _until_ready(self)


async def start_etcd(folder: Path) -> ServerProcess:
    """Start an etcd of one member on free ports of loopback, with its data below `folder`."""
    client, peer = free_port(), free_port()
    peer_url = f"http://127.0.0.1:{peer}"
    arguments = [
        find_program("etcd"),
        "--name=etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=etcd={peer_url}",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
    ]
    return await _start("etcd", client, arguments, folder)


async def start_nats(folder: Path) -> ServerProcess:
    """Start a nats-server with JetStream on a free port of loopback."""
    port = free_port()
    arguments = [
        find_program("nats-server"),
        "--addr=127.0.0.1",
        f"--port={port}",
        "--jetstream",
        f"--store_dir={folder / 'nats'}",
    ]
    return await _start("nats-server", port, arguments, folder)


async def _start(name: str, port: int, arguments: list[str], folder: Path) -> ServerProcess:
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    log_file = folder / f"{name}.log"
    process = await _spawn(arguments, log_file)
    server = ServerProcess(name, f"127.0.0.1:{port}", arguments, log_file, process)
    await _until_ready(server)
    return server


async def _spawn(arguments: list[str], log_file: Path) -> asyncio.subprocess.Process:
    with log_file.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *leashed(arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
        )


async def _until_ready(server: ServerProcess) -> None:
    probe = _etcd_answers if server.name == "etcd" else _nats_answers
    try:
        async with asyncio.timeout(_READY_S):
            await _until(server, probe)
    except TimeoutError:
        await server.stop()
        raise UnavailableError(
            f"{server.name} was not ready within {_READY_S:.0f} s",
            hint=f"its log is {server.log_file}",
        ) from None


async def _until(server: ServerProcess, probe: Callable[[str], Awaitable[bool]]) -> None:
    while not await probe(server.address):
        if server.process.returncode is not None:
            raise UnavailableError(
                f"{server.name} ended at once", hint=f"its log is {server.log_file}"
            )
        await asyncio.sleep(_POLL_S)


async def _etcd_answers(address: str) -> bool:
    return b'"health":"true"' in await _ask(address, b"GET /health HTTP/1.0\r\n\r\n")


async def _nats_answers(address: str) -> bool:
    return b'"jetstream":true' in await _ask(address, b"")


async def _ask(address: str, request: bytes) -> bytes:
    host, port = address.rsplit(":", 1)
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return b""
    try:
        writer.write(request)
        return await reader.read(4096) if not request else await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()
