"""Folders as archives that are always the same for the same content.

Tar files without times, owners and compression: equal folders are one object, stored once, and
nothing in one can grow when it is unpacked (`lepton_ai.datasets.archives` does that).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lepton_ai.errors import DataError, ResourceExhaustedError

__all__ = ["files_below", "pack", "source_files"]

# The first that exists says what stays behind, in the syntax of .gitignore.
_IGNORE_FILES = (".leptonignore", ".gitignore")
_IGNORED = (".git/", ".hg/", ".svn/", "__pycache__/", "*.pyc", ".venv/", "venv/", "node_modules/")
_MAX_FILES = 20_000


def source_files(folder: Path) -> list[Path]:
    """The files of a working folder that go with a job, sorted.

    What ``.leptonignore`` names stays behind, or ``.gitignore`` where there is none; so do
    repositories' own folders, caches and environments of Python.

    Raises:
        DataError: There is a link that leads out of the folder, or something that is no file.
        ResourceExhaustedError: There are too many files.
    """
    from pathspec import GitIgnoreSpec

    ignore_file = next((folder / n for n in _IGNORE_FILES if (folder / n).is_file()), None)
    lines = ignore_file.read_text(errors="replace").splitlines() if ignore_file else []
    ignored = GitIgnoreSpec.from_lines([*_IGNORED, *lines])
    found: list[Path] = []
    for path in _walk(folder, folder, ignored.match_file):
        _check(path, folder)
        found.append(path)
        if len(found) > _MAX_FILES:
            raise ResourceExhaustedError(
                f"{folder} has more than {_MAX_FILES} files", hint="name others in .leptonignore"
            )
    return sorted(found)


def files_below(folder: Path) -> list[Path]:
    """All plain files below a folder, sorted; links are left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(found)


def pack(folder: Path, files: Iterable[Path], into: Path, max_bytes: int) -> None:
    """Write files, named by their place below `folder`, as one archive.

    Raises:
        ResourceExhaustedError: They are larger than `max_bytes` together.
    """
    left = max_bytes
    with tarfile.open(into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in files:
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            with path.open("rb") as content:
                member.size = os.fstat(content.fileno()).st_size
                left -= member.size
                if left < 0:
                    raise ResourceExhaustedError(
                        f"the files in {folder} are larger than {max_bytes:,} bytes together"
                    )
                archive.addfile(member, content)


def _walk(folder: Path, root: Path, ignored: Any) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if ignored(path.relative_to(root).as_posix() + "/" * is_folder):
            continue
        if is_folder:
            yield from _walk(path, root, ignored)
        else:
            yield path


def _check(path: Path, folder: Path) -> None:
    inside = path.resolve().is_relative_to(folder.resolve())
    if not inside or not path.is_file():
        what = "leads out of the folder" if path.is_symlink() else "is no plain file"
        raise DataError(f"{path} {what}", hint="name it in .leptonignore, or put a copy there")
