"""What storage nodes remember when etcd does not."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from storage_nodes import GARBAGE_AGE_S, Nodes, node_record, nodes_of

from lepton_ai.proto.v1.storage_pb2 import Model
from lepton_runtime import keys
from lepton_runtime.clock import ManualClock
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Remove, Write
from lepton_storage.records import Records


async def forget_all(nodes: Nodes) -> None:
    """What a new etcd in place of the old one knows: the nodes that are there."""
    records = (await nodes.state.list(keys.ROOT)).records
    await nodes.state.commit([], [Remove(record.key) for record in records])
    await nodes.state.commit([], [node_record(name) for name in "abc"])
    await nodes.clock.advance(0)


def test_objects_and_names_come_back_after_etcd_lost_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            stored = [await nodes.put(bytes([number]), replication=2) for number in range(20)]
            model = Model(name="digits", version=1, onnx_object=stored[0].id)
            kept = Write(keys.model("digits", 1), model.SerializeToString())
            await nodes.state.commit([], [kept])
            await nodes.heal()
            await nodes.clock.advance(GARBAGE_AGE_S + 1)
            await forget_all(nodes)
            # The first round of a node tells what it has; nobody removes anything before.
            await nodes.heal()
            for number, item in enumerate(stored):
                back = await nodes.stores["a"].stat(item.id)
                assert set(back.chunks[0].nodes) == set(item.chunks[0].nodes)
                assert await nodes.read(item.id) == bytes([number])
            record = await nodes.state.get(kept.key)
            assert record is not None
            assert record.value == kept.value

    asyncio.run(scenario())


def test_what_was_deleted_does_not_come_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            stored = await nodes.put(b"content")
            await nodes.heal()
            await nodes.lose("c")
            await nodes.stores["a"].delete(stored.id)
            await nodes.heal()
            await nodes.bring_back("c")
            await nodes.heal()
            assert not (await nodes.state.list(keys.OBJECTS)).records

    asyncio.run(scenario())


def test_a_copy_is_written_again_after_a_change_and_goes_with_its_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        state, clock = MemoryState(), ManualClock()
        records = Records(tmp_path / "records", "a", state, clock, GARBAGE_AGE_S)
        key = keys.quota("team")
        for value in (b"one", b"two"):
            await state.commit([], [Write(key, value)])
            await records.attend([])
            assert await records.all() == [(key, value)]
        again = Records(tmp_path / "records", "a", state, clock, GARBAGE_AGE_S)
        await again.attend([])
        assert await again.all() == [(key, b"two")]
        await state.commit([], [Remove(key)])
        await again.attend([])
        assert await again.all()
        await clock.advance(10**12)
        await again.attend([])
        assert not await again.all()

    asyncio.run(scenario())


def test_a_damaged_copy_is_no_copy(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = MemoryState()
        await state.commit([], [Write(keys.quota("team"), b"one")])
        records = Records(tmp_path / "records", "a", state, ManualClock(), GARBAGE_AGE_S)
        await records.attend([])
        [path] = (tmp_path / "records").iterdir()
        good = path.read_bytes()
        for bit in range(8 * len(good)):
            spoilt = bytearray(good)
            spoilt[bit // 8] ^= 1 << bit % 8
            path.write_bytes(spoilt)
            assert await records.scrub() == 1
            assert not path.exists()
            await records.attend([])
            assert path.read_bytes() == good
        path.unlink()
        assert await records.scrub() == 1

    asyncio.run(scenario())


def test_a_chore_that_fails_keeps_no_other_from_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:

            def full(name: str, content: bytes) -> None:
                raise OSError(errno.ENOSPC, "full")

            for records in nodes.records.values():
                monkeypatch.setattr(records, "_write", full)
            stored = await nodes.put(b"content")
            nodes.files("b")[0].unlink()
            await nodes.heal()
            assert await nodes.chunks["b"].read(stored.chunks[0].hash) == b"content"

    asyncio.run(scenario())
