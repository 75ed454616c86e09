"""How fast objects are stored and read, beside bare gRPC streams and the NATS object store.

    python bench/storage.py [--mebibytes 256] [--objects 10000] [--repeats 3]

Two storage nodes, etcd and NATS run on this machine, and everything is stored twice. Beside them
run a bare `grpc.aio` server that streams one copy to a file (SHA-256, write, fsync) and back, and
a JetStream object store. Machines drift: compare figures of one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import nats

from lepton_ai.data_plane import DataPlane
from lepton_ai.objects import ObjectClient
from lepton_ai.proto.v1 import node_pb2
from lepton_runtime import keys
from lepton_runtime.auth import make_keys
from lepton_runtime.etcd import EtcdState
from lepton_runtime.servers import start_etcd, start_nats

MEBI = 1024 * 1024
PART = MEBI
SMALL = 4096
AT_ONCE = 64
_OPTIONS = [("grpc.max_receive_message_length", 2 * PART)]


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    asyncio.run(measure(options.mebibytes * MEBI, options.objects, options.repeats))


async def measure(size: int, objects: int, repeats: int) -> None:
    """Every path in turn, `repeats` times over, so that drift meets all of them alike."""
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            bare = await stack.enter_async_context(bare_stream(Path(folder)))
            nodes = await stack.enter_async_context(storage(Path(folder)))
            for _ in range(repeats):
                content = os.urandom(size)
                for name, (put, get) in {
                    "bare gRPC": (bare.put, bare.get),
                    "Lepton": (nodes.put, nodes.get),
                    "NATS object store": (nodes.nats_put, nodes.nats_get),
                }.items():
                    for verb, work in (("PUT", put), ("GET", get)):
                        seconds = await timed(partial(work, content))
                        rates.setdefault(f"{verb} {name}", []).append(size / MEBI / seconds)
            medians = {name: statistics.median(values) for name, values in rates.items()}
            for name, rate in medians.items():
                print(f"{name:24} {rate:8.0f} MiB/s")
            for verb, wanted in (("PUT", 0.7), ("GET", 1.2)):
                ratio = medians[f"{verb} Lepton"] / medians[f"{verb} bare gRPC"]
                print(f"{verb} Lepton / bare gRPC    {ratio:6.2f} (wanted: {wanted})")
            seconds = await timed(lambda: nodes.put_small(objects))
            print(f"PUT {objects} x 4 KiB       {objects / seconds:8.0f} objects/s (wanted: 1000)")
            print(f"memory of the nodes      {nodes.memory_text()}")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory of the client     {own:.0f} MiB at most")


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


class BareStream:
    """A client of the bare gRPC server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._put = channel.stream_unary("/bare/put")
        self._get = channel.unary_stream("/bare/get")

    async def put(self, content: bytes) -> None:
        async def parts() -> AsyncIterator[bytes]:
            for start in range(0, len(content), PART):
                yield content[start : start + PART]

        assert await self._put(parts()) == hashlib.sha256(content).digest()

    async def get(self, content: bytes) -> None:
        seen, length = hashlib.sha256(), 0
        async for part in self._get(b""):
            seen.update(part)
            length += len(part)
        assert length == len(content)


@asynccontextmanager
async def bare_stream(folder: Path) -> AsyncGenerator[BareStream]:
    """The bare server as a process of its own."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--serve", str(folder / "bare")),
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    port = int(await server.stdout.readline())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", _OPTIONS) as channel:
            yield BareStream(channel)
    finally:
        server.kill()
        await server.wait()


async def serve(path: Path) -> None:
    """Be the bare server: one copy, SHA-256, write and fsync in; read and SHA-256 out."""

    async def put(requests: AsyncIterator[bytes], context: object) -> bytes:
        seen = hashlib.sha256()
        with path.open("wb") as file:
            async for part in requests:
                seen.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        return seen.digest()

    async def get(request: bytes, context: object) -> AsyncIterator[bytes]:
        seen = hashlib.sha256()
        with path.open("rb") as file:
            while part := file.read(PART):
                seen.update(part)
                yield part

    server = grpc.aio.server(options=_OPTIONS)
    handlers = {
        "put": grpc.stream_unary_rpc_method_handler(put),
        "get": grpc.unary_stream_rpc_method_handler(get),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bare", handlers)])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


class Storage:
    """A client of two storage nodes, and of the NATS server beside them."""

    def __init__(self, data: DataPlane, store: nats.js.object_store.ObjectStore) -> None:
        self._objects = ObjectClient(data)
        self._nats = store
        self._id = ""
        self.processes: list[asyncio.subprocess.Process] = []

    async def put(self, content: bytes) -> None:
        self._id = (await self._objects.put_bytes(content, replication=2)).id

    async def get(self, content: bytes) -> None:
        length = 0
        async for part in self._objects.stream(self._id):
            length += len(part)
        assert length == len(content)

    async def nats_put(self, content: bytes) -> None:
        await self._nats.put("bench", content)

    async def nats_get(self, content: bytes) -> None:
        # Without a file the client library adds part to part, which takes minutes.
        into = io.BytesIO()
        await self._nats.get("bench", writeinto=into)
        assert into.tell() == len(content)

    async def put_small(self, count: int) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with slots:
                await self._objects.put_bytes(os.urandom(SMALL), replication=2)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one())

    def memory_text(self) -> str:
        """The most memory that each node has used."""
        peaks: list[str] = []
        for process in self.processes:
            status = Path(f"/proc/{process.pid}/status").read_text()
            [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
            peaks.append(f"{int(line.split()[1]) // 1024} MiB")
        return " and ".join(peaks) + " at most"


@asynccontextmanager
async def storage(folder: Path) -> AsyncGenerator[Storage]:
    """Two storage nodes with their etcd and NATS."""
    make_keys(folder / "keys", time.time())
    etcd, broker = await start_etcd(folder / "etcd"), await start_nats(folder / "nats")
    settings = {
        "LEPTON_ETCD_ENDPOINTS": json.dumps([etcd.address]),
        "LEPTON_NATS_SERVERS": json.dumps([f"nats://{broker.address}"]),
        "LEPTON_KEYS_DIR": str(folder / "keys"),
    }
    state = EtcdState([etcd.address])
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lepton_storage"),
            env={
                **os.environ,
                **settings,
                "LEPTON_NODE_ID": name,
                "LEPTON_DATA_DIR": str(folder / name),
            },
            stderr=asyncio.subprocess.DEVNULL,
        )
        for name in ("s1", "s2")
    ]
    client = await nats.connect(f"nats://{broker.address}")
    try:
        doors = await both_up(state)
        data = DataPlane(doors, (folder / "keys/admin.token").read_text(), None, direct=True)
        store = await client.jetstream().create_object_store("bench")
        made = Storage(data, store)
        made.processes = processes
        yield made
        data.close()
    finally:
        await client.close()
        for process in processes:
            process.kill()
            await process.wait()
        await state.close()
        await broker.stop()
        await etcd.stop()


async def both_up(state: EtcdState) -> list[str]:
    """Where the nodes take data, once both do."""
    async with asyncio.timeout(30):
        while True:
            records = (await state.list(keys.NODES)).records
            nodes = [node_pb2.Node.FromString(record.value) for record in records]
            if len(nodes) == 2:
                return [node.data_address for node in nodes]
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
    else:
        main()
