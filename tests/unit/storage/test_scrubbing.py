"""Decay of what nobody reads."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from pack_files import records_below
from storage_nodes import Nodes, disk_on, nodes_of

from lepton_ai.chunking import digest
from lepton_runtime.clock import ManualClock
from lepton_runtime.memory import MemoryState
from lepton_storage.chunks import Chunks
from lepton_storage.records import Records
from lepton_storage.scrubbing import Scrubber
from lepton_storage.sealing import Plain

MEBI = 1024 * 1024


def flip_a_bit(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def below(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"*/{name}/*"))


def scrubber(chunks: Chunks, records: Records, clock: ManualClock) -> Scrubber:
    return Scrubber(chunks, records, clock, bytes_per_s=4 * MEBI, interval_s=1.0)


def flip_bits(nodes: Nodes, chance: random.Random, count: int) -> None:
    """In so many chunks of two nodes; there are good ones on the third."""
    folders = [nodes.folder / name for name in "ab"]
    packed = [record for folder in folders for record in records_below(folder).values()]
    for record in chance.sample(packed, count) if packed else []:
        record.flip(chance.randrange(8 * (record.stop - record.start)))
    paths = [path for name in "ab" for path in nodes.files(name)]
    for path in chance.sample(paths, count) if paths else []:
        flip_a_bit(path, chance)


@pytest.mark.parametrize("packed_bytes", [0, 4_096])
def test_a_thousand_flipped_bits_and_a_hundred_in_records_are_found_and_healed(
    tmp_path: Path, packed_bytes: int
) -> None:
    async def scenario() -> None:
        chance = random.Random(7)
        async with nodes_of(tmp_path, packed_bytes=packed_bytes) as nodes:
            contents: dict[str, bytes] = {}
            for _ in range(600):
                data = chance.randbytes(1 + chance.randrange(2_000))
                contents[(await nodes.put(data)).id] = data
            await nodes.heal()
            flip_bits(nodes, chance, 1_000)
            for path in chance.sample(below(tmp_path, "records"), 100):
                flip_a_bit(path, chance)
            for object_id in chance.sample(sorted(contents), 50):
                assert await nodes.read(object_id, by="b") == contents[object_id]
            read = len(below(tmp_path, "quarantine"))
            assert 0 < read < 100
            found = 0
            for name in "abc":
                each = scrubber(nodes.chunks[name], nodes.records[name], nodes.clock)
                found += await each.scrub()
            assert found + read == 1_100
            await nodes.heal()
            for name in "abc":
                again = scrubber(nodes.chunks[name], nodes.records[name], nodes.clock)
                assert await again.scrub() == 0
                for data in contents.values():
                    assert await nodes.chunks[name].read(digest(data)) == data

    asyncio.run(scenario())


def test_it_reads_no_faster_than_allowed(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, chunks = ManualClock(), Chunks(disk_on(tmp_path), Plain())
        records = Records(tmp_path / "records", "a", MemoryState(), clock, 0.0)
        for number in range(4):
            data = bytes([number]) * 4 * MEBI
            await chunks.write(digest(data), data, "team")
        paused: list[float] = []

        async def pause(seconds: float) -> None:
            paused.append(seconds)

        clock.sleep = pause  # type: ignore[method-assign]
        await scrubber(chunks, records, clock).scrub()
        assert paused == [2.0, 2.0]

    asyncio.run(scenario())
