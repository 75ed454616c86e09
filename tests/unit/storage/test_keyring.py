"""Chunks that are encrypted at rest."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
from storage_nodes import disk_on

from lepton_ai.chunking import digest
from lepton_ai.errors import ConflictError, DataCorruptError, InvalidArgumentError
from lepton_runtime import keys
from lepton_runtime.memory import MemoryState
from lepton_storage.chunks import Chunks
from lepton_storage.keyring import Keyring, LocalMaster
from lepton_storage.sealing import Plain

OLD = base64.b64encode(bytes(32)).decode()
NEW = base64.b64encode(bytes([1]) * 32).decode()
DATA = b"nobody may read this on the disk"
HASH = digest(DATA)


def the_file(folder: Path) -> Path:
    [path] = (folder / "chunks").glob("*/*")
    return path


async def keyring(state: MemoryState, text: str) -> Keyring:
    found = Keyring(state, LocalMaster(text))
    await found.load()
    return found


def test_what_lies_on_the_disk_says_nothing_and_any_node_with_the_master_reads_it(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        state = MemoryState()
        await Chunks(disk_on(tmp_path), await keyring(state, OLD)).write(HASH, DATA, "team")
        lies = the_file(tmp_path).read_bytes()
        assert b"nobody" not in lies
        [record] = (await state.list(keys.TENANT_KEYS)).records
        assert record.key.endswith("/team")
        again = Chunks(disk_on(tmp_path), await keyring(state, OLD))
        assert await again.read(HASH) == DATA

    asyncio.run(scenario())


def test_tenants_have_keys_of_their_own() -> None:
    async def scenario() -> None:
        ring = await keyring(MemoryState(), OLD)
        for tenant in ("red", "blue"):
            await ring.ensure(tenant)
        red = b"".join(ring.seal("red", HASH, DATA))
        assert ring.open(HASH, red) == DATA
        assert ring.open(HASH, red.replace(b"red\0", b"blue", 1)) is None
        assert ring.open(digest(b"other"), red) is None

    asyncio.run(scenario())


def test_any_flipped_bit_is_seen(tmp_path: Path) -> None:
    async def scenario() -> None:
        chunks = Chunks(disk_on(tmp_path), await keyring(MemoryState(), OLD))
        await chunks.write(HASH, DATA, "team")
        good = the_file(tmp_path).read_bytes()
        for bit in range(8 * len(good)):
            spoilt = bytearray(good)
            spoilt[bit // 8] ^= 1 << bit % 8
            await chunks.write(HASH, DATA, "team")
            the_file(tmp_path).write_bytes(spoilt)
            with pytest.raises(DataCorruptError):
                await chunks.read(HASH)

    asyncio.run(scenario())


def test_two_nodes_agree_on_a_new_tenants_key() -> None:
    async def scenario() -> None:
        state = MemoryState()
        rings = [await keyring(state, OLD) for _ in range(5)]
        await asyncio.gather(*(ring.ensure("team") for ring in rings))
        sealed = b"".join(rings[0].seal("team", HASH, DATA))
        assert all(ring.open(HASH, sealed) == DATA for ring in rings)

    asyncio.run(scenario())


def test_rotation_wraps_keys_anew_and_touches_no_chunk(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = MemoryState()
        old = await keyring(state, OLD)
        await Chunks(disk_on(tmp_path), old).write(HASH, DATA, "team")
        before = the_file(tmp_path).read_bytes()
        with pytest.raises(ConflictError, match=r"'team'.*not here"):
            await keyring(state, NEW)
        both = await keyring(state, f"{NEW}\n{OLD}\n")
        assert await both.rewrap() == 1
        new = await keyring(state, NEW)
        assert await Chunks(disk_on(tmp_path), new).read(HASH) == DATA
        assert the_file(tmp_path).read_bytes() == before
        with pytest.raises(ConflictError):
            await keyring(state, OLD)

    asyncio.run(scenario())


def test_a_key_that_another_node_makes_is_learnt_while_running(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = MemoryState()
        first, second = await keyring(state, OLD), await keyring(state, OLD)
        following = asyncio.create_task(second.follow())
        await first.ensure("team")
        sealed = b"".join(first.seal("team", HASH, DATA))
        for _ in range(10):  # turns of the loop
            await asyncio.sleep(0)
        assert second.open(HASH, sealed) == DATA
        following.cancel()

    asyncio.run(scenario())


def test_encrypted_and_plain_chunks_lie_side_by_side(tmp_path: Path) -> None:
    async def scenario() -> None:
        await Chunks(disk_on(tmp_path), Plain()).write(HASH, DATA, "team")
        chunks = Chunks(disk_on(tmp_path), await keyring(MemoryState(), OLD))
        await chunks.write(digest(b"x"), b"x", "team")
        assert await chunks.read(HASH) == DATA
        assert await chunks.read(digest(b"x")) == b"x"

    asyncio.run(scenario())


def test_nothing_is_rotated_where_nothing_is_encrypted() -> None:
    with pytest.raises(ConflictError, match="not encrypted"):
        asyncio.run(Plain().rewrap())


@pytest.mark.parametrize("text", ["", "short", "c2hvcnQ=", f"{OLD} x", OLD[:-1]])
def test_what_is_no_master_key_is_said(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="32 bytes in base64"):
        LocalMaster(text)
