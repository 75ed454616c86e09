"""Decay of what nobody reads."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from storage_nodes import nodes_of

from lepton_ai.chunking import digest
from lepton_runtime.clock import ManualClock
from lepton_runtime.memory import MemoryState
from lepton_storage.chunks import Chunks
from lepton_storage.disk import Disk
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


def test_a_thousand_flipped_bits_and_a_hundred_in_records_are_found_and_healed(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        chance = random.Random(7)
        async with nodes_of(tmp_path) as nodes:
            contents: dict[str, bytes] = {}
            for _ in range(600):
                data = chance.randbytes(1 + chance.randrange(2_000))
                contents[(await nodes.put(data)).id] = data
            await nodes.heal()
            copies = [path for name in "ab" for path in nodes.files(name)]  # a good one at c
            spoilt = chance.sample(copies, 1_000)
            spoilt += chance.sample(below(tmp_path, "records"), 100)
            for path in spoilt:
                flip_a_bit(path, chance)
            for object_id in chance.sample(sorted(contents), 50):
                assert await nodes.read(object_id, by="b") == contents[object_id]
            read = len(below(tmp_path, "quarantine"))
            assert 0 < read < 100
            found = 0
            for name in "abc":
                each = scrubber(nodes.chunks[name], nodes.records[name], nodes.clock)
                found += await each.scrub()
            assert found + read == len(spoilt)
            await nodes.heal()
            assert all(path.exists() for path in spoilt)
            for name in "abc":
                again = scrubber(nodes.chunks[name], nodes.records[name], nodes.clock)
                assert await again.scrub() == 0
                for data in contents.values():
                    assert await nodes.chunks[name].read(digest(data)) == data

    asyncio.run(scenario())


def test_it_reads_no_faster_than_allowed(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, chunks = ManualClock(), Chunks(Disk(tmp_path, 0), Plain())
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
