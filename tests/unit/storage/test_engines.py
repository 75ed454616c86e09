"""The same for every engine: what `Chunks` stands on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from storage_nodes import disk_on

from lepton_ai.chunking import digest
from lepton_ai.errors import InvalidArgumentError, NotFoundError
from lepton_runtime.clock import Clock, ManualClock, SystemClock
from lepton_storage.bucket import Bucket
from lepton_storage.chunks import Engine

HASH, OTHER = digest(b"one"), digest(b"other")
AGE_S = 100.0


def disk(folder: Path, clock: Clock) -> Engine:
    return disk_on(folder, 0, clock)


def packs(folder: Path, clock: Clock) -> Engine:
    return disk_on(folder, 100, clock)


def bucket(folder: Path, clock: Clock) -> Engine:
    return Bucket(f"file://{folder}", clock, AGE_S)


@pytest.fixture
def clock() -> ManualClock:
    """Right, but that it stands still: files are as old as the system says."""
    return ManualClock(SystemClock().now())


@pytest.fixture(params=[disk, packs, bucket])
def engine(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Engine:
    make: Callable[[Path, Clock], Engine] = request.param
    return make(tmp_path, clock)


def put_long_ago(engine: Engine, folder: Path, clock: ManualClock) -> None:
    now = clock.now()
    asyncio.run(clock.advance(-2 * AGE_S))
    engine.put({HASH: [b"x"], OTHER: [b"x"]})
    asyncio.run(clock.advance(2 * AGE_S))
    for path in folder.glob("chunks/*/*"):
        os.utime(path, (now - 2 * AGE_S, now - 2 * AGE_S))


def test_what_is_put_is_there(engine: Engine) -> None:
    assert not engine.has(HASH)
    assert not engine.renew(HASH)
    with pytest.raises(NotFoundError):
        engine.get(HASH)
    engine.put({HASH: [b"o", memoryview(b"ne")]})
    assert engine.has(HASH)
    assert engine.renew(HASH)
    assert engine.get(HASH) == b"one"
    engine.put({HASH: [b"two"]})
    assert engine.get(HASH) == b"two"
    assert engine.hashes() == [HASH]


def test_what_is_set_aside_is_gone(engine: Engine, tmp_path: Path) -> None:
    engine.put({HASH: [b"bad"]})
    engine.set_aside(HASH)
    engine.set_aside(HASH)
    assert not engine.has(HASH)
    assert engine.hashes() == []
    assert [path.read_bytes() for path in tmp_path.glob("quarantine/*")] == [b"bad"]


def test_only_what_is_old_and_unnamed_is_collected(
    engine: Engine, tmp_path: Path, clock: ManualClock
) -> None:
    now = clock.now()
    put_long_ago(engine, tmp_path, clock)
    engine.renew(HASH)
    assert engine.collect({OTHER}, now - AGE_S) == 0
    assert sorted(engine.hashes()) == sorted([HASH, OTHER])


def test_what_is_old_and_unnamed_is_collected(
    engine: Engine, tmp_path: Path, clock: ManualClock
) -> None:
    now = clock.now()
    put_long_ago(engine, tmp_path, clock)
    assert engine.collect({OTHER}, now - AGE_S) == 1
    assert engine.hashes() == [OTHER]


def test_a_store_is_listed_only_once_in_a_while(tmp_path: Path) -> None:
    clock = ManualClock()
    shared = Bucket(f"file://{tmp_path}", clock, AGE_S)
    assert shared.collect(set(), 4e9) == 0
    shared.put({HASH: [b"x"]})
    assert shared.collect(set(), 4e9) == 0
    assert shared.has(HASH)


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/y", ""])
def test_what_is_no_store_is_said(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not the URL of an object store"):
        Bucket(url, SystemClock(), AGE_S)
