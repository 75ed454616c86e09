from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from lepton_ai.proto.v1 import node_pb2
from lepton_gateway.envoy.documents import DocumentFolder
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.mirror import Mirror
from lepton_gateway.routing import Routing
from lepton_runtime import keys
from lepton_runtime.clock import ManualClock
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Write


def scheduler(address: str) -> Write:
    node = node_pb2.Node(id="s", role=node_pb2.NODE_ROLE_SCHEDULER, address=address)
    return Write(keys.node("s"), node.SerializeToString())


@asynccontextmanager
async def routed(state: MemoryState, clock: ManualClock, folder: Path) -> AsyncGenerator[Routing]:
    mirror = Mirror(state, [keys.NODES])
    documents = DocumentFolder(folder)
    routing = Routing(mirror, clock, documents, shadow_port=7, limits=Limits(), tls=None)
    tasks = [asyncio.create_task(mirror.follow())]
    await routing.start()
    tasks.append(asyncio.create_task(routing.run()))
    try:
        yield routing
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def port(folder: Path) -> int:
    [assignment] = json.loads((folder / "eds.schedulers.json").read_text())["resources"]
    [member] = assignment["endpoints"][0]["lb_endpoints"]
    return member["endpoint"]["address"]["socket_address"]["port_value"]


async def changed(clock: ManualClock) -> None:
    """Let a burst of changes end."""
    await clock.advance(0)
    await clock.advance(1)


def test_documents_follow_the_cluster(tmp_path: Path) -> None:
    async def scenario() -> None:
        state, clock = MemoryState(), ManualClock()
        await state.commit([], [scheduler("127.0.0.1:1")])
        async with routed(state, clock, tmp_path) as routing:
            assert port(tmp_path) == 1
            await state.commit([], [scheduler("127.0.0.1:2")])
            await changed(clock)
            assert port(tmp_path) == 2
            assert routing.table.schedulers == ("127.0.0.1:2",)

    asyncio.run(scenario())


def test_a_record_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        state, clock = MemoryState(), ManualClock()
        await state.commit([], [scheduler("127.0.0.1:1")])
        async with routed(state, clock, tmp_path):
            await state.commit([], [Write(keys.node("bad"), b"\xff")])
            await changed(clock)
            assert port(tmp_path) == 1
            await state.commit([], [Write(keys.node("bad"), b""), scheduler("127.0.0.1:3")])
            await changed(clock)
            assert port(tmp_path) == 3

    asyncio.run(scenario())
