"""Archives from anywhere, unpacked without trust.

Refused are links and devices, names that lead elsewhere, what is encrypted, cut short or damaged,
and what grows beyond measure: bytes are counted as they come out, for what an archive says of
itself may be false.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from lepton_ai.errors import DataError, LeptonError, ResourceExhaustedError

__all__ = ["Limits", "is_archive", "unpack"]

_ZIP = ".zip"
_TAR: dict[str, Callable[[Path], Any]] = {
    ".tar": lambda path: path.open("rb"),
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
# Others make of a few bytes as much as they like in one read.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_PART_BYTES = 1024 * 1024
_FORMAT_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    RecursionError,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may become.

    Args:
        size_bytes: Of all its files together.
        members: Files and folders.
        ratio: Bytes that come out for each byte of the archive.
        depth: Folders in folders.
    """

    size_bytes: int = 10 * 1024**3
    members: int = 1_000_000
    ratio: int = 200
    depth: int = 32


def is_archive(path: Path) -> bool:
    """Whether `path` is called like an archive that `unpack` knows."""
    return path.name.lower().endswith((_ZIP, *_TAR))


def unpack(archive: Path, into: Path, limits: Limits | None = None) -> None:
    """Write the files of an archive below `into`, an empty folder.

    Raises:
        DataError: It is no archive, or holds what is refused; says what.
        ResourceExhaustedError: It becomes too large, or there is no room for it.
    """
    limits = limits or Limits()
    size_bytes = min(limits.size_bytes, archive.stat().st_size * limits.ratio)
    budget = _Budget(size_bytes, limits.members)
    try:
        for member in _members(archive, budget):
            budget.member()
            _place(member, into, budget, limits.depth)
    except LeptonError:
        raise
    except _FORMAT_ERRORS as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhaustedError("there is no room to unpack the archive") from None
        raise _damaged(archive, error) from None


class _Member(NamedTuple):
    """A file or, without content, a folder."""

    name: str
    size_bytes: int
    content: IO[bytes] | None


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


class _Bounded:
    """A file that gives no more in one read than a part, and remembers the last it gave.

    `tarfile` reads headers whole, whatever length they claim.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.last = b""

    def read(self, size: int) -> bytes:
        if size > _PART_BYTES:
            raise DataError(f"a header of the archive claims {size} bytes")
        self.last = self._file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _members(archive: Path, budget: _Budget) -> Iterator[_Member]:
    name = archive.name.lower()
    if name.endswith(_ZIP):
        return _zipped(archive)
    opened = next(opened for suffix, opened in _TAR.items() if name.endswith(suffix))
    return _taped(archive, opened, budget)


def _zipped(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            # `orig_filename` is the name before a NUL would have cut it.
            name = member.orig_filename
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"the archive has {name!r}, which is no plain file")
            if member.flag_bits & 1:
                raise DataError(f"{name!r} in the archive is encrypted")
            if member.compress_type not in _ZIP_METHODS:
                raise DataError(f"{name!r} in the archive is not stored or deflated")
            if member.is_dir():
                yield _Member(name, 0, None)
                continue
            with file.open(member) as content:
                yield _Member(name, member.file_size, content)


def _taped(archive: Path, opened: Callable[[Path], Any], budget: _Budget) -> Iterator[_Member]:
    with opened(archive) as packed:
        bounded = _Bounded(packed)
        with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r:") as file:
            for member in file:
                budget.take(tarfile.BLOCKSIZE)
                content = file.extractfile(member) if member.isfile() else None
                if content is None and not member.isdir():
                    raise DataError(f"the archive has {member.name!r}, which is no plain file")
                yield _Member(member.name, member.size, content)
        # A header that cannot be read ends the loop as the end of the archive does.
        if bounded.last != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it is cut short, or a header in it is bad")


def _place(member: _Member, into: Path, budget: _Budget, depth: int) -> None:
    path = _safe(member, depth)
    target = into / path
    if member.content is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    if target.exists():
        raise DataError(f"the archive has {member.name!r} twice")
    target.parent.mkdir(parents=True, exist_ok=True)
    written = _write(target, member.content, budget)
    if written != member.size_bytes:
        raise DataError(f"{member.name!r} in the archive is cut short")


def _safe(member: _Member, depth: int) -> PurePosixPath:
    name, path = member.name, PurePosixPath(member.name)
    wrong = path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name
    nameless = member.content is not None and not path.parts
    if wrong or nameless or len(path.parts) > depth:
        raise DataError(
            f"the archive has a file called {name[:80]!r}",
            hint=f"names stay below a folder, {depth} deep at most",
        )
    return path


def _write(path: Path, content: IO[bytes], budget: _Budget) -> int:
    written = 0
    with path.open("xb") as file:
        while part := content.read(_PART_BYTES):
            budget.take(len(part))
            file.write(part)
            written += len(part)
    return written


def _damaged(archive: Path, error: Exception) -> DataError:
    return DataError(f"{archive.name} is damaged or no archive: {error}")
