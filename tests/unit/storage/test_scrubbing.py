"""Decay of what nobody reads."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from lepton_ai.chunking import digest
from lepton_runtime.clock import ManualClock
from lepton_storage.chunks import Chunks
from lepton_storage.disk import Disk
from lepton_storage.scrubbing import Scrubber
from lepton_storage.sealing import Plain


def flip_a_bit(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def test_one_pass_finds_every_flipped_bit(tmp_path: Path) -> None:
    async def scenario() -> None:
        chance = random.Random(7)
        disk = Chunks(Disk(tmp_path, 0), Plain())
        contents = [chance.randbytes(1 + chance.randrange(2_000)) for _ in range(300)]
        for data in contents:
            await disk.write(digest(data), data, "team")
        spoilt = chance.sample(sorted((tmp_path / "chunks").glob("*/*")), 100)
        for path in spoilt:
            flip_a_bit(path, chance)
        scrubber = Scrubber(disk, ManualClock(), bytes_per_s=1, interval_s=1.0)
        assert await scrubber.scrub() == len(spoilt)
        assert await scrubber.scrub() == 0
        assert await disk.missing([digest(data) for data in contents]) == {
            bytes.fromhex(path.name) for path in spoilt
        }

    asyncio.run(scenario())


def test_it_reads_no_faster_than_allowed(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, disk = ManualClock(), Chunks(Disk(tmp_path, 0), Plain())
        mebi = 1024 * 1024
        for number in range(4):
            data = bytes([number]) * 4 * mebi
            await disk.write(digest(data), data, "team")
        paused: list[float] = []

        async def pause(seconds: float) -> None:
            paused.append(seconds)

        clock.sleep = pause  # type: ignore[method-assign]
        await Scrubber(disk, clock, bytes_per_s=4 * mebi, interval_s=1.0).scrub()
        assert paused == [2.0, 2.0]

    asyncio.run(scenario())
