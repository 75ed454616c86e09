"""Storage nodes killed at random moments of a mixed load: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from storage_cluster import TIMEOUT_S, Cluster, eventually, running

from lepton_ai.chunking import digest
from lepton_ai.data_plane import DataPlane
from lepton_ai.errors import LeptonError
from lepton_ai.objects import ObjectClient
from lepton_ai.proto.v1 import storage_pb2
from lepton_ai.proto.v1.storage_pb2_grpc import StorageServiceStub

KILLS = int(os.environ.get("LEPTON_TEST_KILLS", "50"))
SEED = int(os.environ.get("LEPTON_TEST_SEED", "1"))
NAMES = ("s1", "s2", "s3")
BIG_BYTES = 12 * 1024 * 1024


@asynccontextmanager
async def client(cluster: Cluster) -> AsyncGenerator[ObjectClient]:
    """One that knows the nodes that live now."""
    doors = [node.data_address for node in (await cluster.nodes()).values()]
    plane = DataPlane(doors, cluster.token, None, direct=True)
    try:
        yield ObjectClient(plane)
    finally:
        plane.close()


class Load:
    """Stores and reads until told to stop, and remembers what was acknowledged."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        self.acknowledged: dict[str, bytes] = {}
        self.refused = 0
        self.reads = 0
        self.stop = asyncio.Event()

    async def store(self) -> None:
        while not self.stop.is_set():
            size = self.chance.choice((100, 4_096, 200_000, 5 * 1024 * 1024))
            data = self.chance.randbytes(size)
            try:
                async with client(self.cluster) as objects:
                    stored = await objects.put_bytes(data, replication=2)
            except LeptonError:  # nothing was promised
                self.refused += 1
            else:
                self.acknowledged[stored.id] = digest(data)

    async def read(self) -> None:
        """A reader does not notice that nodes die."""
        while not self.stop.is_set():
            wanted = self.chance.choice(list(self.acknowledged) or [""])
            if wanted:
                async with client(self.cluster) as objects:
                    data = await objects.get_bytes(wanted)
                assert digest(data) == self.acknowledged[wanted]
                self.reads += 1
            await asyncio.sleep(0)


def test_what_was_acknowledged_outlives_fifty_kills(tmp_path: Path) -> None:
    async def scenario() -> None:
        chance = random.Random(SEED)
        async with running(tmp_path, grace_s=60) as cluster:
            load = Load(cluster, chance)
            async with asyncio.TaskGroup() as tasks:
                for work in (load.store, load.store, load.read):
                    tasks.create_task(work())
                for _ in range(KILLS):
                    await asyncio.sleep(chance.uniform(0.05, 0.5))
                    name = chance.choice(NAMES)
                    await cluster.kill(name)
                    killed_at = time.time()
                    await cluster.start(name)
                    await eventually(partial(_is_back, cluster, name, killed_at))
                load.stop.set()
            print(f"{len(load.acknowledged)} stored, {load.refused} refused, {load.reads} read")
            assert len(load.acknowledged) > KILLS
            assert load.reads > KILLS
            async with client(cluster) as objects:
                for wanted, hash_ in load.acknowledged.items():
                    assert digest(await objects.get_bytes(wanted)) == hash_
            await eventually(lambda: _nothing_found(cluster))

    asyncio.run(scenario())


async def _is_back(cluster: Cluster, name: str, killed_at: float) -> bool:
    """Only one may be away at a time where there are two copies."""
    node = (await cluster.nodes()).get(name)
    return node is not None and node.started_at.ToNanoseconds() > killed_at * 1e9


async def _nothing_found(cluster: Cluster) -> bool:
    stub = StorageServiceStub(await cluster.channel("s1"))
    request = storage_pb2.CheckStorageRequest()
    answers = [answer async for answer in stub.CheckStorage(request, timeout=TIMEOUT_S)]
    return not answers[-1].summary.findings


def test_a_reader_in_flight_succeeds_and_copies_are_made_in_time(tmp_path: Path) -> None:
    grace_s = 3.0

    async def scenario() -> None:
        data = random.Random(SEED).randbytes(BIG_BYTES)
        async with running(tmp_path, grace_s=grace_s) as cluster, client(cluster) as objects:
            stored = await objects.put_bytes(data, replication=2)
            lost = stored.chunks[0].nodes[0]
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(objects.get_bytes(stored.id))
                await cluster.kill(lost)
            assert reading.result() == data
            killed_at = time.monotonic()

            before = sum(lost in chunk.nodes for chunk in stored.chunks)
            assert before

            async def healed_one() -> bool:
                chunks = (await objects.stat(stored.id)).chunks
                return sum(lost in chunk.nodes for chunk in chunks) < before

            await eventually(healed_one)
            waited_s = time.monotonic() - killed_at
            print(f"copied again after {waited_s:.1f} s")
            assert grace_s - 2.5 <= waited_s <= grace_s + 5

    asyncio.run(scenario())
