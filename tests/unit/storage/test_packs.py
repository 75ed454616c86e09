"""Small contents that share files."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import threading
from pathlib import Path

import pytest
from pack_files import HEAD_BYTES, records_below

from lepton_ai.chunking import digest
from lepton_ai.errors import DataCorruptError, NotFoundError
from lepton_runtime.clock import ManualClock
from lepton_storage import packs as packs_module
from lepton_storage.packs import Packs

PACK_BYTES = 4_000


def contents_of(count: int, seed: int = 0) -> dict[bytes, bytes]:
    chance = random.Random(seed)
    made = [chance.randbytes(chance.randrange(1, 200)) for _ in range(count)]
    return {digest(content): content for content in made}


def at(folder: Path, clock: ManualClock | None = None) -> Packs:
    return Packs(folder / "packs", clock or ManualClock(), PACK_BYTES)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "packs").iterdir())


def test_what_was_put_is_there_also_after_another_start(tmp_path: Path) -> None:
    packs, contents = at(tmp_path), contents_of(100)
    for name, content in contents.items():
        packs.put({name: content})
    assert len(files(tmp_path)) > 2
    for each in (packs, at(tmp_path)):
        assert set(each.names()) == set(contents)
        assert all(each.get(name) == content for name, content in contents.items())
    with pytest.raises(NotFoundError):
        packs.get(digest(b"nothing"))


def test_of_two_the_later_counts(tmp_path: Path) -> None:
    packs, name = at(tmp_path), digest(b"name")
    for content in (b"first", b"then", b"last"):
        packs.put({name: content})
    assert at(tmp_path).get(name) == packs.get(name) == b"last"


def test_any_flipped_bit_of_a_head_is_seen_and_the_others_are_found(tmp_path: Path) -> None:
    packs, contents = at(tmp_path), contents_of(3)
    packs.put(contents)
    victim = list(contents)[1]
    record = records_below(tmp_path)[victim]
    for bit in range(8 * HEAD_BYTES):
        record.flip(bit)
        with pytest.raises(DataCorruptError):
            packs.get(victim)
        assert set(at(tmp_path).names()) == set(contents) - {victim}
        record.flip(bit)
    assert packs.get(victim) == contents[victim]


def test_what_a_crash_left_half_written_hides_nothing(tmp_path: Path) -> None:
    packs, contents = at(tmp_path), contents_of(5)
    packs.put(contents)
    [last] = (tmp_path / "packs").iterdir()
    whole = last.read_bytes()
    more = contents_of(3, seed=1)
    packs.put(more)
    longer = last.read_bytes()
    for size in range(len(whole), len(longer)):
        last.write_bytes(longer[:size])
        again = at(tmp_path)
        assert set(contents) <= set(again.names()) < set(contents) | set(more)
        again.put(more)
        assert set(at(tmp_path).names()) == set(contents) | set(more)
        for path in set((tmp_path / "packs").iterdir()) - {last}:
            path.unlink()


def test_a_full_disk_keeps_nothing_and_can_be_written_once_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs, contents, more = at(tmp_path), contents_of(5), contents_of(5, seed=1)
    packs.put(contents)
    size = (tmp_path / "packs" / files(tmp_path)[0]).stat().st_size
    write = os.write

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(packs_module.os, "write", half)
        with pytest.raises(OSError, match="full"):
            packs.put(more)
    assert (tmp_path / "packs" / files(tmp_path)[0]).stat().st_size == size
    assert set(packs.names()) == set(at(tmp_path).names()) == set(contents)
    packs.put(more)
    assert set(at(tmp_path).names()) == set(contents) | set(more)


def test_what_was_removed_or_set_aside_stays_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        packs, contents = at(tmp_path, clock), contents_of(30)
        packs.put(contents)
        bad, kept, renewed, *old = contents
        assert packs.set_aside(bad, tmp_path / "aside")
        assert not packs.set_aside(bad, tmp_path / "aside")
        assert (tmp_path / "aside").read_bytes() == contents[bad]
        await clock.advance(10)
        assert packs.renew(renewed)
        assert not packs.renew(bad)
        assert packs.collect({kept}, clock.now()) == len(old)
        for each in (packs, at(tmp_path, clock)):
            assert set(each.names()) == {kept, renewed}
            assert each.get(kept) == contents[kept]

    asyncio.run(scenario())


def test_packs_of_which_little_counts_are_written_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        packs, contents = at(tmp_path, clock), contents_of(300)
        for name, content in contents.items():
            packs.put({name: content})
        before = files(tmp_path)
        kept = set(list(contents)[::10])
        records = records_below(tmp_path)
        damaged = next(iter(kept))
        records[damaged].flip(8 * HEAD_BYTES)
        await clock.advance(10)
        packs.collect(kept, clock.now())
        assert len(files(tmp_path)) < len(before) / 3
        assert before[-1] in files(tmp_path)  # it still grows
        for each in (packs, at(tmp_path, clock)):
            assert set(each.names()) == kept
            for name in kept - {damaged}:
                assert each.get(name) == contents[name]
            assert each.get(damaged) != contents[damaged]
        # As old as they were: what nobody names any more goes as soon as it would have.
        assert packs.collect(set(), clock.now()) == len(kept)
        assert not packs.names()

    asyncio.run(scenario())


def test_readers_find_what_is_moved_meanwhile(tmp_path: Path) -> None:
    clock = ManualClock()
    packs, contents = at(tmp_path, clock), contents_of(60)
    stop = threading.Event()
    wrong: list[bytes] = []
    started = threading.Barrier(3)

    def read() -> None:
        started.wait(5)
        while not stop.is_set():
            wrong.extend(name for name in contents if packs.get(name) != contents[name])

    packs.put(contents)
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    started.wait(5)
    filler = contents_of(400, seed=1)
    for name, content in filler.items():
        packs.put({name: content})
        packs.collect(set(contents), clock.now() + 1)
    stop.set()
    for reader in readers:
        reader.join(5)
    assert not wrong
    assert set(packs.names()) == set(contents)


def test_what_cannot_be_read_for_a_while_is_not_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "failed")

    at(tmp_path).put(contents := contents_of(5))
    packs = at(tmp_path)  # another start: that pack does not grow any more
    with monkeypatch.context() as patch:
        patch.setattr(packs_module.os, "pread", fail)
        packs.collect(set(contents), 0.0)
    assert all(packs.get(name) == content for name, content in contents.items())
    packs.collect(set(contents), 0.0)
    assert all(at(tmp_path).get(name) == content for name, content in contents.items())
