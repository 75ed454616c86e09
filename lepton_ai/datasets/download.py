"""Files of data sets: found in a folder, or downloaded once, resumed and checked."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path

from lepton_ai.datasets.sources import Source
from lepton_ai.errors import DataCorruptError, LeptonError, UnavailableError

__all__ = ["FOLDER_VARIABLE", "Open", "locate", "open_url"]

FOLDER_VARIABLE = "LEPTON_DATASETS"
"""The environment variable that names a folder of data sets."""

_CONNECT_S = 4.0
"""For all mirrors together, name resolution included."""
_BLOCK_BYTES = 1 << 16

Open = Callable[[str, int, float], tuple[HTTPResponse, bool]]
"""(url, bytes already here, timeout in seconds) -> (response, whether it goes on from there)."""


def open_url(url: str, offset: int, timeout_s: float) -> tuple[HTTPResponse, bool]:
    """Open `url` from `offset` on.

    Resolving a name has no time-out of its own, so all of it happens in a thread that is left
    behind when time is up.

    Raises:
        OSError: It could not be opened in time.
    """
    outcome: list[HTTPResponse | Exception] = []

    def attempt() -> None:
        request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"})  # noqa: S310
        try:
            outcome.append(urllib.request.urlopen(request, timeout=timeout_s))  # noqa: S310
        except Exception as failure:  # noqa: BLE001  # raised again by the caller's thread
            outcome.append(failure)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise TimeoutError(f"no answer within {timeout_s:.0f} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0], outcome[0].status == http.client.PARTIAL_CONTENT


def locate(source: Source, open_url: Open = open_url) -> Path:
    """The path of a data set's file, from ``LEPTON_DATASETS``, the cache, or its publisher.

    Args:
        source: The file.
        open_url: How to open an address; the network by default.

    Raises:
        DataCorruptError: The file found does not have the known digest.
        UnavailableError: It is not here and could not be downloaded; says where to put it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lepton/datasets"
    folder = os.environ.get(FOLDER_VARIABLE)
    for place in filter(None, (folder, cache)):
        path = Path(place) / source.path
        if path.exists():
            _check(path.read_bytes(), source, path)
            return path
    return _download(source, cache / source.path, open_url)


def _download(source: Source, target: Path, open_url: Open) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    deadline, failures = time.monotonic() + _CONNECT_S, list[str]()
    for url in source.urls:
        try:
            _fetch(url, part, source.limit_bytes, open_url, deadline - time.monotonic())
            content = _content(part, source)
            _check(content, source, target)
        except LeptonError:
            part.unlink(missing_ok=True)
            raise
        except (OSError, http.client.HTTPException) as failure:
            failures.append(f"{url} ({failure})")
            continue
        part.write_bytes(content)
        part.replace(target)
        return target
    raise UnavailableError(
        f"could not download {source.path}: {'; '.join(failures)}",
        hint=f"put the file at {source.path} in a folder and name that in {FOLDER_VARIABLE}",
    )


def _fetch(url: str, part: Path, limit_bytes: int, open_url: Open, timeout_s: float) -> None:
    """Append to `part` what it still lacks; what came before a break stays for the next call."""
    offset = part.stat().st_size if part.exists() else 0
    try:
        response, continues = open_url(url, offset, max(0.1, timeout_s))
    except urllib.error.HTTPError as refusal:
        if refusal.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return  # All of it is here already; the digest decides.
    with response, part.open("ab" if continues else "wb") as file:
        expected_bytes = None if response.length is None else file.tell() + response.length
        while block := response.read(_BLOCK_BYTES):
            file.write(block)
            if file.tell() > limit_bytes:
                raise DataCorruptError(f"{url} sends more than {limit_bytes} bytes")
        if expected_bytes is not None and file.tell() < expected_bytes:
            raise ConnectionError(f"broke off after {file.tell()} of {expected_bytes} bytes")


def _content(part: Path, source: Source) -> bytes:
    if not source.member:
        return part.read_bytes()
    try:
        with zipfile.ZipFile(part) as archive:
            if archive.getinfo(source.member).file_size > source.limit_bytes:
                raise DataCorruptError(f"{source.member} is larger than {source.limit_bytes} bytes")
            return archive.read(source.member)
    except (zipfile.BadZipFile, KeyError):
        raise DataCorruptError(f"{source.urls[0]} does not hold {source.member}") from None


def _check(content: bytes, source: Source, path: Path) -> None:
    *gunzip, algorithm, expected = source.digest.split(":")
    try:
        hashed = gzip.decompress(content) if gunzip else content
    except (OSError, EOFError, zlib.error):
        hashed = b""
    if hashlib.new(algorithm, hashed, usedforsecurity=False).hexdigest() != expected:
        raise DataCorruptError(
            f"{path} does not have the known {algorithm} digest", hint="remove it and load again"
        )
