"""What tenants may store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from storage_nodes import TENANT, nodes_of

from lepton_ai.errors import InvalidArgumentError, ResourceExhaustedError
from lepton_ai.proto.v1.storage_pb2 import Object, TenantUsage
from lepton_runtime.memory import MemoryState
from lepton_storage.quotas import Quotas, Usage, usage_of


def test_each_object_counts_once_whatever_its_copies() -> None:
    manifests = [
        Object(id="a", tenant="red", size_bytes=3, replication=5),
        Object(id="b", tenant="red", size_bytes=4),
        Object(id="c", tenant="blue", size_bytes=5),
    ]
    assert usage_of(manifests) == {"red": Usage(2, 7), "blue": Usage(1, 5)}


def test_what_is_too_much_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            await nodes.quotas.set(TENANT, 10)
            await nodes.clock.advance(0)
            await nodes.put(b"123456")
            with pytest.raises(ResourceExhaustedError, match="stores 6 bytes and may store 10"):
                await nodes.put(b"12345")
            await nodes.put(b"1234")
            await nodes.heal()
            [usage] = nodes.quotas.table()
            assert usage == TenantUsage(tenant=TENANT, objects=2, size_bytes=10, quota_bytes=10)
            with pytest.raises(ResourceExhaustedError):
                await nodes.put(b"x")
            await nodes.quotas.set(TENANT, 0)
            await nodes.clock.advance(0)
            await nodes.put(b"x")

    asyncio.run(scenario())


def test_deleting_gives_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            await nodes.quotas.set(TENANT, 4)
            await nodes.clock.advance(0)
            stored = await nodes.put(b"1234")
            await nodes.stores["a"].delete(stored.id)
            await nodes.heal()
            await nodes.put(b"4321")

    asyncio.run(scenario())


@pytest.mark.parametrize(("tenant", "size"), [("Team", 1), ("../x", 1), ("team", -1)])
def test_what_is_no_quota_is_said(tenant: str, size: int) -> None:
    with pytest.raises(InvalidArgumentError):
        asyncio.run(Quotas(MemoryState()).set(tenant, size))
