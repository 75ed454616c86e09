from __future__ import annotations

import asyncio

from lepton_gateway.mirror import Mirror
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Remove, Write


def test_it_follows_its_prefixes_and_survives_interruptions() -> None:
    async def scenario() -> None:
        state = MemoryState()
        await state.commit([], [Write("/a/1", b"1"), Write("/b/1", b"1"), Write("/c/1", b"1")])
        mirror = Mirror(state, ["/a/", "/b/"])
        following = asyncio.create_task(mirror.follow())
        await mirror.wait_changed()
        assert mirror.records == {"/a/1": b"1", "/b/1": b"1"}
        await state.commit([], [Write("/a/2", b"2"), Remove("/b/1")])
        await mirror.wait_changed()
        assert mirror.records == {"/a/1": b"1", "/a/2": b"2"}
        state.interrupt_watches()
        await mirror.wait_changed()
        assert mirror.records == {"/a/1": b"1", "/a/2": b"2"}
        following.cancel()
        await asyncio.wait([following])

    asyncio.run(scenario())


def test_nothing_is_told_before_every_prefix_was_read() -> None:
    async def scenario() -> None:
        state = MemoryState()
        mirror = Mirror(state, ["/a/", "/b/"])
        waiting = asyncio.create_task(mirror.wait_changed())
        await asyncio.sleep(0)
        assert not waiting.done()
        following = asyncio.create_task(mirror.follow())
        await waiting
        assert mirror.records == {}
        following.cancel()
        await asyncio.wait([following])

    asyncio.run(scenario())
