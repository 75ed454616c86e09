"""Chunks as files."""

from __future__ import annotations

import asyncio
import errno
import shutil
from pathlib import Path

import pytest

from lepton_ai.chunking import digest
from lepton_ai.errors import DataCorruptError, NotFoundError, ResourceExhaustedError
from lepton_storage import disk as disk_module
from lepton_storage.disk import Disk

DATA = b"some bytes"
HASH = digest(DATA)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_written_is_read_also_by_another_start(tmp_path: Path) -> None:
    asyncio.run(Disk(tmp_path, 0).write(HASH, DATA))
    (tmp_path / "unfinished" / "left").write_bytes(b"half")
    assert asyncio.run(Disk(tmp_path, 0).read(HASH)) == DATA
    assert len(files(tmp_path)) == 1


def test_wrong_bytes_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(DataCorruptError):
        asyncio.run(Disk(tmp_path, 0).write(HASH, b"others"))
    assert files(tmp_path) == []


@pytest.mark.parametrize("spoilt", [b"", b"some bytex", DATA + b"!"])
def test_a_spoilt_copy_is_put_aside_and_can_be_replaced(tmp_path: Path, spoilt: bytes) -> None:
    async def scenario() -> None:
        disk = Disk(tmp_path, 0)
        await disk.write(HASH, DATA)
        [path] = files(tmp_path / "chunks")
        path.write_bytes(spoilt)
        with pytest.raises(DataCorruptError):
            await disk.read(HASH)
        with pytest.raises(NotFoundError):
            await disk.read(HASH)
        assert [aside.read_bytes() for aside in files(tmp_path / "quarantine")] == [spoilt]
        await disk.write(HASH, DATA)
        assert await disk.read(HASH) == DATA

    asyncio.run(scenario())


def test_writing_over_a_spoilt_copy_repairs_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = Disk(tmp_path, 0)
        await disk.write(HASH, DATA)
        files(tmp_path / "chunks")[0].write_bytes(b"bad")
        await disk.write(HASH, DATA)
        assert await disk.read(HASH) == DATA

    asyncio.run(scenario())


def test_the_reserve_is_never_used(tmp_path: Path) -> None:
    disk = Disk(tmp_path, reserve_bytes=shutil.disk_usage(tmp_path).total)
    with pytest.raises(ResourceExhaustedError):
        asyncio.run(disk.write(HASH, DATA))
    assert asyncio.run(disk.usage())[1] == 0
    assert files(tmp_path) == []


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    disk = Disk(tmp_path, 0)
    with monkeypatch.context() as patch:
        patch.setattr(disk_module.os, "fsync", fail)
        with pytest.raises(ResourceExhaustedError):
            asyncio.run(disk.write(HASH, DATA))
    assert files(tmp_path) == []
    asyncio.run(disk.write(HASH, DATA))
    assert asyncio.run(disk.read(HASH)) == DATA
