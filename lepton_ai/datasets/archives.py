"""Archives from anywhere, unpacked without trust.

Refused are links and devices, names that lead elsewhere, what is encrypted, and what grows beyond
measure: bytes are counted as they come out, for what an archive says of itself may be false.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from lepton_ai.errors import DataError, ResourceExhaustedError

__all__ = ["Limits", "is_archive", "unpack"]

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_PART_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What an archive may become.

    Args:
        size_bytes: Of all its files together.
        members: Files and folders.
        ratio: Bytes that come out for each byte of the archive.
    """

    size_bytes: int = 10 * 1024**3
    members: int = 1_000_000
    ratio: int = 200


def is_archive(path: Path) -> bool:
    """Whether `path` is called like an archive that `unpack` knows."""
    return path.name.lower().endswith((".zip", *_TAR))


def unpack(archive: Path, into: Path, limits: Limits | None = None) -> None:
    """Write the files of an archive below `into`, an empty folder.

    Raises:
        DataError: It is no archive, or holds what is refused; says what.
        ResourceExhaustedError: It becomes too large.
    """
    limits = limits or Limits()
    budget = _Budget(min(limits.size_bytes, archive.stat().st_size * limits.ratio), limits.members)
    members = _zipped(archive) if archive.name.lower().endswith(".zip") else _taped(archive)
    seen: set[PurePosixPath] = set()
    try:
        for name, content in members:
            path = _safe(name)
            if path in seen:
                raise DataError(f"the archive has {name!r} twice")
            seen.add(path)
            budget.member()
            _write(into / path, content, budget)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{archive.name} is damaged or no archive: {error}") from None


class _Budget:
    """What may still come out."""

    def __init__(self, size_bytes: int, members: int) -> None:
        self._size_bytes = size_bytes
        self._members = members

    def member(self) -> None:
        self._members -= 1
        if self._members < 0:
            raise ResourceExhaustedError("the archive has too many files")

    def take(self, size_bytes: int) -> None:
        self._size_bytes -= size_bytes
        if self._size_bytes < 0:
            raise ResourceExhaustedError(
                "the archive becomes too large when it is unpacked",
                hint="unpack it yourself and upload the folder",
            )


def _zipped(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"the archive has {member.filename!r}, which is no plain file")
            if member.flag_bits & 1:
                raise DataError(f"{member.filename!r} in the archive is encrypted")
            if not member.is_dir():
                with file.open(member) as content:
                    # `orig_filename` is the name before a NUL would have cut it.
                    yield member.orig_filename, content


def _taped(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as file:
        for member in file:
            content = file.extractfile(member) if member.isfile() else None
            if content is not None:
                with content:
                    yield member.name, content
            elif not member.isdir():
                raise DataError(f"the archive has {member.name!r}, which is no plain file")


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    wrong = path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name
    if wrong or not path.parts:
        raise DataError(f"the archive has a file called {name!r}", hint="names stay below a folder")
    return path


def _write(path: Path, content: IO[bytes], budget: _Budget) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while part := content.read(_PART_BYTES):
            budget.take(len(part))
            file.write(part)
