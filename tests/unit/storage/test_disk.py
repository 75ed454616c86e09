"""Chunks as files."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path

import pytest

from lepton_ai.chunking import digest
from lepton_ai.errors import DataCorruptError, NotFoundError, ResourceExhaustedError
from lepton_runtime.clock import SystemClock
from lepton_storage import disk as disk_module
from lepton_storage.chunks import Chunks
from lepton_storage.disk import Disk
from lepton_storage.sealing import Plain

DATA = b"some bytes"
HASH = digest(DATA)


def on(folder: Path, reserve_bytes: int = 0) -> Chunks:
    return Chunks(
        Disk(folder, reserve_bytes=reserve_bytes, packed_bytes=0, clock=SystemClock()), Plain()
    )


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_written_is_read_also_by_another_start(tmp_path: Path) -> None:
    asyncio.run(on(tmp_path).write(HASH, DATA, "team"))
    (tmp_path / "unfinished" / "left").write_bytes(b"half")
    assert asyncio.run(on(tmp_path).read(HASH)) == DATA
    assert len(files(tmp_path)) == 1


def test_wrong_bytes_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(DataCorruptError):
        asyncio.run(on(tmp_path).write(HASH, b"others", "team"))
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "spoilt", [b"", b"\0some bytex", b"\0" + DATA + b"!", b"\1" + DATA, b"\2" + DATA]
)
def test_a_spoilt_copy_is_put_aside_and_can_be_replaced(tmp_path: Path, spoilt: bytes) -> None:
    async def scenario() -> None:
        chunks = on(tmp_path)
        await chunks.write(HASH, DATA, "team")
        [path] = files(tmp_path / "chunks")
        path.write_bytes(spoilt)
        with pytest.raises(DataCorruptError):
            await chunks.read(HASH)
        with pytest.raises(NotFoundError):
            await chunks.read(HASH)
        assert [aside.read_bytes() for aside in files(tmp_path / "quarantine")] == [spoilt]
        await chunks.write(HASH, DATA, "team")
        assert await chunks.read(HASH) == DATA

    asyncio.run(scenario())


def test_writing_over_a_spoilt_copy_repairs_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        chunks = on(tmp_path)
        await chunks.write(HASH, DATA, "team")
        files(tmp_path / "chunks")[0].write_bytes(b"bad")
        await chunks.write(HASH, DATA, "team")
        assert await chunks.read(HASH) == DATA

    asyncio.run(scenario())


def test_the_reserve_is_never_used(tmp_path: Path) -> None:
    chunks = on(tmp_path, reserve_bytes=shutil.disk_usage(tmp_path).total)
    with pytest.raises(ResourceExhaustedError):
        asyncio.run(chunks.write(HASH, DATA, "team"))
    assert asyncio.run(chunks.usage())[1] == 0
    assert files(tmp_path) == []


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, parts: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    chunks = on(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(disk_module.os, "writev", fail)
        with pytest.raises(ResourceExhaustedError):
            asyncio.run(chunks.write(HASH, DATA, "team"))
    assert files(tmp_path) == []
    asyncio.run(chunks.write(HASH, DATA, "team"))
    assert asyncio.run(chunks.read(HASH)) == DATA


def test_a_write_that_takes_several_calls_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.writev
    with monkeypatch.context() as patch:
        patch.setattr(disk_module.os, "writev", lambda fd, parts: write(fd, [parts[0][:3]]))
        asyncio.run(on(tmp_path).write(HASH, DATA, "team"))
    assert asyncio.run(on(tmp_path).read(HASH)) == DATA
