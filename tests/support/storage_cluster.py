"""Storage nodes as real processes, with their own etcd and NATS."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from lepton_ai.data_plane import DataPlane
from lepton_ai.objects import ObjectClient
from lepton_ai.proto.v1 import node_pb2
from lepton_ai.rpc import open_channel
from lepton_runtime import keys
from lepton_runtime.auth import make_keys
from lepton_runtime.etcd import EtcdState
from lepton_runtime.servers import start_etcd, start_nats

__all__ = ["TIMEOUT_S", "Cluster", "eventually", "running"]

TIMEOUT_S = 30.0


@dataclass
class Cluster:
    """Storage nodes with their own etcd and NATS."""

    folder: Path
    state: EtcdState
    token: str
    settings: dict[str, str]
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    planes: list[DataPlane] = field(default_factory=list)

    async def start(self, name: str) -> None:
        own = {"LEPTON_NODE_ID": name, "LEPTON_DATA_DIR": str(self.folder / name)}
        self.processes[name] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lepton_storage"), env={**os.environ, **self.settings, **own}
        )

    async def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def restart(self, name: str) -> None:
        """End a node in good order and start it again; it is back once this returns."""
        process = self.processes.pop(name)
        process.terminate()
        await process.wait()
        await self.start(name)

        async def back() -> bool:
            return name in await self.nodes()

        await eventually(back)

    async def nodes(self) -> dict[str, node_pb2.Node]:
        records = (await self.state.list(keys.NODES)).records
        nodes = [node_pb2.Node.FromString(record.value) for record in records]
        return {node.id: node for node in nodes if node.disk_free_bytes}

    async def channel(self, name: str, token: str = "") -> grpc.aio.Channel:
        node = (await self.nodes())[name]
        self.channels.append(open_channel(node.address, token or self.token))
        return self.channels[-1]

    async def data(self, name: str, token: str = "", *, direct: bool = True) -> DataPlane:
        node = (await self.nodes())[name]
        plane = DataPlane([node.data_address], token or self.token, None, direct=direct)
        self.planes.append(plane)
        return plane

    async def client(self, name: str) -> ObjectClient:
        return ObjectClient(await self.data(name))

    def files(self, name: str) -> list[Path]:
        return sorted((self.folder / name / "chunks").glob("*/*"))

    async def close(self) -> None:
        for plane in self.planes:
            plane.close()
        for channel in self.channels:
            await channel.close()
        for name in list(self.processes):
            await self.kill(name)
        await self.state.close()


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not await holds():  # noqa: ASYNC110 - other processes are watched
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running(
    folder: Path, count: int = 3, grace_s: float = 1.0, **settings: str
) -> AsyncGenerator[Cluster]:
    """Nodes s1, s2 … that know each other, and nothing of them left afterwards.

    `settings` are further ones of the nodes, by the names that `StorageSettings` gives them.
    """
    make_keys(folder / "keys", time.time())
    etcd, nats = await start_etcd(folder / "etcd"), await start_nats(folder / "nats")
    environment = {
        "LEPTON_ETCD_ENDPOINTS": json.dumps([etcd.address]),
        "LEPTON_NATS_SERVERS": json.dumps([f"nats://{nats.address}"]),
        "LEPTON_KEYS_DIR": str(folder / "keys"),
        "LEPTON_MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
        "LEPTON_HEAL_GRACE_S": str(grace_s),
        "LEPTON_HEAL_INTERVAL_S": "0.2",
        "LEPTON_LEASE_TTL_S": "2",
        **{f"LEPTON_{name.upper()}": value for name, value in settings.items()},
    }
    token = (folder / "keys/admin.token").read_text()
    cluster = Cluster(folder, EtcdState([etcd.address]), token, environment)

    async def complete() -> bool:
        return len(await cluster.nodes()) == count

    try:
        for number in range(1, count + 1):
            await cluster.start(f"s{number}")
        await eventually(complete)
        yield cluster
    finally:
        await cluster.close()
        await nats.stop()
        await etcd.stop()
