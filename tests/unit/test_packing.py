"""What of a folder goes with a job, and that the same folder is always the same archive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lepton_ai.datasets.archives import unpack
from lepton_ai.errors import DataError, ResourceExhaustedError
from lepton_ai.packing import pack, source_files


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in source_files(folder)]


def test_equal_folders_make_equal_archives_that_unpack_again(tmp_path: Path) -> None:
    content = ("train.py", "package/module.py", "ein Name mit Umlauten, und länger als hundert" * 3)
    archives: list[bytes] = []
    for number, at in enumerate((1, 2_000_000_000)):
        folder = made(tmp_path / str(number), *content)
        os.utime(folder / "train.py", (at, at))
        archive = tmp_path / f"{number}.tar"
        pack(folder, source_files(folder), archive, 10_000)
        archives.append(archive.read_bytes())
        into = tmp_path / f"again-{number}"
        into.mkdir()
        unpack(archive, into)
        assert names(into) == names(folder)
    assert archives[0] == archives[1]


def test_what_is_ignored_stays_behind(tmp_path: Path) -> None:
    files = ("train.py", "data/big.bin", "a.log", "keep.log", "x/__pycache__/y.pyc", ".git/config")
    made(tmp_path, *files)
    assert names(tmp_path) == ["a.log", "data/big.bin", "keep.log", "train.py"]
    (tmp_path / ".gitignore").write_text("data/\n*.log\n!keep.log\n")
    assert names(tmp_path) == [".gitignore", "keep.log", "train.py"]
    (tmp_path / ".leptonignore").write_text("data\n")
    assert "a.log" in names(tmp_path)


def test_links_stay_in_the_folder(tmp_path: Path) -> None:
    folder = made(tmp_path / "work", "train.py", "sub/x")
    (folder / "same.py").symlink_to("train.py")
    assert names(folder) == ["same.py", "sub/x", "train.py"]
    for target in (tmp_path, "/etc/hostname", "nowhere", "sub"):
        (folder / "link").symlink_to(target)
        with pytest.raises(DataError, match="link"):
            source_files(folder)
        (folder / "link").unlink()


def test_too_much_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "work", "a", "b")
    with pytest.raises(ResourceExhaustedError, match="larger than 1 bytes"):
        pack(folder, source_files(folder), tmp_path / "x.tar", 1)
