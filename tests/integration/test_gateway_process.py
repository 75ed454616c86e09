"""The gateway as it is run: its process, its own calls, and the Envoy below it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from lepton_ai.proto.v1 import gateway_pb2, gateway_pb2_grpc, options_pb2
from lepton_ai.rpc import open_channel
from lepton_runtime.auth import make_keys
from lepton_runtime.servers import start_etcd, start_nats

TIMEOUT_S = 20.0


class Gateway:
    """A gateway process with its own etcd and NATS."""

    def __init__(
        self, process: asyncio.subprocess.Process, settings: dict[str, str], key: str
    ) -> None:
        self.process = process
        self.settings = settings
        self.address = f"127.0.0.1:{settings['LEPTON_PORT']}"
        self.key = key

    async def request(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        return await asyncio.to_thread(self._request, method, path, document)

    def _request(self, method: str, path: str, document: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)
        body = None if document is None else json.dumps(document)
        try:
            connection.request(method, path, body, {"authorization": f"Bearer {self.key}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    async def is_ready(self) -> bool:
        """Whether it answers and is a member of its cluster."""
        try:
            status, answer = await self.request("GET", "/v1/status")
        except (OSError, http.client.HTTPException):
            return False
        return status == 200 and answer["gateways"] == 1

    def envoy(self) -> int:
        """The process id of the Envoy below it."""
        [child] = _children(self.process.pid)
        return child


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not await holds():  # noqa: ASYNC110 - other processes are watched
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[Gateway]:
    """A gateway that is ready, and nothing of it left afterwards."""
    keys_dir = folder / "keys"
    make_keys(keys_dir, time.time())
    etcd = await start_etcd(folder / "etcd")
    nats = await start_nats(folder / "nats")
    settings = {
        "LEPTON_NODE_ID": "gateway-1",
        "LEPTON_PORT": str(_free_port()),
        "LEPTON_ETCD_ENDPOINTS": json.dumps([etcd.address]),
        "LEPTON_NATS_SERVERS": json.dumps([f"nats://{nats.address}"]),
        "LEPTON_DATA_DIR": str(folder / "gateway"),
        "LEPTON_KEYS_DIR": str(keys_dir),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lepton_gateway"), env={**os.environ, **settings}
    )
    gateway = Gateway(process, settings, (keys_dir / "admin.token").read_text())
    try:
        await eventually(gateway.is_ready)
        yield gateway
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await nats.stop()
        await etcd.stop()


def test_keys_and_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as gateway:
            status, answer = await gateway.request("GET", "/v1/status")
            assert (status, answer["gateways"], answer["workers"]) == (200, 1, 0)
            wanted = {"role": "ROLE_VIEWER", "tenant": "team"}
            status, viewer = await gateway.request("POST", "/v1/keys", wanted)
            assert status == 200
            viewing = Gateway(gateway.process, gateway.settings, viewer["key"])
            assert (await viewing.request("GET", "/v1/status"))[0] == 200
            status, refused = await viewing.request("POST", "/v1/keys", wanted)
            assert (status, "role admin" in refused["error"]) == (403, True)
            status, refused = await gateway.request("POST", "/v1/keys", {"role": "ROLE_SERVICE"})
            assert (status, "ROLE_ADMIN" in refused["error"]) == (400, True)
            assert (await gateway.request("DELETE", f"/v1/keys/{viewer['id']}"))[0] == 200

            async def is_refused() -> bool:
                return (await viewing.request("GET", "/v1/status"))[0] == 403

            await eventually(is_refused)

    asyncio.run(scenario())


def test_own_calls_over_grpc(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(tmp_path) as gateway,
            open_channel(gateway.address, gateway.key, None) as channel,
        ):
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)
            request = gateway_pb2.CreateKeyRequest(role=options_pb2.ROLE_INFERENCE, ttl_s=60)
            answer = await stub.CreateKey(request, timeout=TIMEOUT_S)
            assert answer.expires_at.ToSeconds() <= time.time() + 61

    asyncio.run(scenario())


def test_envoy_is_started_again_and_ends_with_the_gateway(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as gateway:
            first = gateway.envoy()
            os.kill(first, signal.SIGKILL)

            async def is_back() -> bool:
                children = _children(gateway.process.pid)
                return bool(children) and children != [first] and await gateway.is_ready()

            await eventually(is_back)
            second = gateway.envoy()
            gateway.process.kill()
            await gateway.process.wait()

            async def is_gone() -> bool:
                return not _lives(second)

            await eventually(is_gone)

    asyncio.run(scenario())


def test_it_drains_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as gateway:
            envoy = gateway.envoy()
            gateway.process.terminate()
            async with asyncio.timeout(TIMEOUT_S):
                assert await gateway.process.wait() == 0
            assert not _lives(envoy)

    asyncio.run(scenario())


def test_a_taken_port_is_told_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as gateway:
            port = gateway.address.rpartition(":")[2]
            settings = {**gateway.settings, "LEPTON_PORT": port, "LEPTON_NODE_ID": "gateway-2"}
            settings["LEPTON_DATA_DIR"] = str(tmp_path / "second")
            second = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lepton_gateway"),
                env={**os.environ, **settings},
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    _, said = await second.communicate()
            finally:
                with suppress(ProcessLookupError):
                    second.kill()
            assert (second.returncode, b"port free?" in said) == (1, True)

    asyncio.run(scenario())
