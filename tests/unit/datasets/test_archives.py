"""Archives that nobody should trust."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from lepton_ai.datasets.archives import Limits, unpack
from lepton_ai.errors import DataError, ResourceExhaustedError


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def taped(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for member, content in members:
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def plain(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def test_plain_files_come_out(tmp_path: Path, into: Path) -> None:
    unpack(zipped(tmp_path / "a.zip", ("a.txt", b"1"), ("b/c.txt", b"2")), into)
    assert files(into) == {"a.txt": b"1", "b/c.txt": b"2"}
    other = tmp_path / "other"
    other.mkdir()
    folder = special("b", tarfile.DIRTYPE)
    unpack(taped(tmp_path / "a.tgz", folder, plain("b/c.txt", b"2")), other)
    assert files(other) == {"b/c.txt": b"2"}


NAMES = ["../x", "/etc/x", "a/../../x", "a\\..\\x", "..", "."]


@pytest.mark.parametrize("name", [*NAMES, "a\0b"])
def test_names_that_lead_elsewhere_are_refused_in_zip(
    tmp_path: Path, into: Path, name: str
) -> None:
    path = zipped(tmp_path / "a.zip", ("good", b"x"), ("N" * len(name), b"x"))
    # Written as they are, which the library does not do.
    path.write_bytes(path.read_bytes().replace(b"N" * len(name), name.encode()))
    with pytest.raises(DataError, match="called"):
        unpack(path, into)
    assert set(files(tmp_path)) <= {"a.zip", "into/good"}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused_in_tar(
    tmp_path: Path, into: Path, name: str
) -> None:
    with pytest.raises(DataError, match="called"):
        unpack(taped(tmp_path / "a.tar.gz", plain(name)), into)
    assert set(files(tmp_path)) == {"a.tar.gz"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, into: Path, kind: bytes) -> None:
    with pytest.raises(DataError, match="no plain file"):
        unpack(taped(tmp_path / "a.tar.gz", special("x", kind, "/etc/passwd"), plain("x/y")), into)
    assert not files(into)


def test_links_in_zip_are_refused(tmp_path: Path, into: Path) -> None:
    link = zipfile.ZipInfo("x")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="no plain file"):
        unpack(tmp_path / "a.zip", into)
    assert not files(into)


def test_the_same_name_twice_is_refused(tmp_path: Path, into: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        unpack(taped(tmp_path / "a.tar.gz", plain("x", b"1"), plain("./x", b"2")), into)
    assert files(into) == {"x": b"1"}


def test_a_bomb_is_cut_short(tmp_path: Path, into: Path) -> None:
    bomb = bytes(64 * 1024 * 1024)
    for path in (
        zipped(tmp_path / "a.zip", ("x", bomb)),
        taped(tmp_path / "a.tar.gz", plain("x", bomb)),
    ):
        size = path.stat().st_size
        assert len(bomb) / size > 900
        with pytest.raises(ResourceExhaustedError, match="too large"):
            unpack(path, into)
        assert sum(map(len, files(into).values())) <= 200 * size
        (into / "x").unlink()


def test_too_many_members_and_bytes_are_refused(tmp_path: Path, into: Path) -> None:
    path = zipped(tmp_path / "a.zip", *((str(number), b"x" * 10) for number in range(5)))
    with pytest.raises(ResourceExhaustedError, match="too many"):
        unpack(path, into, Limits(members=4))
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ResourceExhaustedError, match="too large"):
        unpack(path, other, Limits(size_bytes=49))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_what_is_no_archive_is_said(tmp_path: Path, into: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all" * 100)
    with pytest.raises(DataError, match="no archive"):
        unpack(tmp_path / name, into)


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_a_damaged_archive_is_said(tmp_path: Path, into: Path, name: str) -> None:
    content = bytes(range(256)) * 1000
    path = tmp_path / name
    if name == "a.zip":
        zipped(path, ("x", content))
    else:
        taped(path, plain("x", content))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError):
        unpack(path, into)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError):
        unpack(path, into)


def test_an_encrypted_member_is_refused(tmp_path: Path, into: Path) -> None:
    path = zipped(tmp_path / "a.zip", ("x", b"1"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        unpack(path, into)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_tar_that_ends_between_members_is_cut_short(
    tmp_path: Path, into: Path, kept: int
) -> None:
    whole = taped(tmp_path / "whole.tgz", *(plain(str(n), b"x" * 600) for n in range(4)))
    content = gzip.decompress(whole.read_bytes())[: kept * (512 + 1024)]
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match="cut short"):
        unpack(tmp_path / "a.tar", into)


def test_a_bad_header_amid_a_tar_is_said(tmp_path: Path, into: Path) -> None:
    whole = taped(tmp_path / "whole.tgz", *(plain(str(n), b"x" * 600) for n in range(4)))
    content = bytearray(gzip.decompress(whole.read_bytes()))
    content[2 * (512 + 1024) + 10] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match="a header in it is bad"):
        unpack(tmp_path / "a.tar", into)


def test_a_zip_member_shorter_than_it_claims_is_said(tmp_path: Path, into: Path) -> None:
    path = zipped(tmp_path / "a.zip", ("x", b"12345"))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24  # the size when unpacked, in the directory
    data[at : at + 4] = (50).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError):
        unpack(path, into)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_methods_with_a_bound_are_unpacked(tmp_path: Path, into: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
        file.writestr("x", bytes(1_000))
    with pytest.raises(DataError, match="not stored or deflated"):
        unpack(tmp_path / "a.zip", into)


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path, into: Path) -> None:
    header = special("x", tarfile.XHDTYPE)[0]
    header.size = 1 << 30
    (tmp_path / "a.tar").write_bytes(header.tobuf() + bytes(1024))
    with pytest.raises(DataError, match="claims 1073741824 bytes"):
        unpack(tmp_path / "a.tar", into)


def test_folders_count_and_have_a_depth(tmp_path: Path, into: Path) -> None:
    folders = [special(f"d{number}", tarfile.DIRTYPE) for number in range(5)]
    with pytest.raises(ResourceExhaustedError, match="too many"):
        unpack(taped(tmp_path / "a.tgz", *folders), into, Limits(members=4))
    deep = plain("/".join("d" * 40) + "/x")
    with pytest.raises(DataError, match="32 deep"):
        unpack(taped(tmp_path / "b.tgz", deep), into)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_kind_of_tar_comes_out(tmp_path: Path, into: Path, mode: str) -> None:
    path = tmp_path / f"a.tar{mode[1:].replace(':', '.')}"
    with tarfile.open(path, mode) as file:
        for number in range(3):
            member = tarfile.TarInfo(f"./{number}")
            member.size = 3_000_000
            file.addfile(member, io.BytesIO(bytes([number]) * member.size))
    unpack(path, into, Limits(ratio=1_000_000))
    assert files(into) == {str(number): bytes([number]) * 3_000_000 for number in range(3)}
