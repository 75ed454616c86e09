from __future__ import annotations

import asyncio

import pytest

from lepton_runtime.cancellation import end, raise_if_cancelled


async def deaf(began: asyncio.Event, swallowed: int) -> None:
    """Forgets so many cancellations, as libraries do."""
    for _ in range(swallowed + 1):
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


@pytest.mark.parametrize("swallowed", [0, 1, 2])
def test_a_task_ends_however_often_a_library_forgets(swallowed: int) -> None:
    async def scenario() -> None:
        began = asyncio.Event()
        task = asyncio.create_task(deaf(began, swallowed))
        await began.wait()
        async with asyncio.timeout(5):
            await end(task, again_s=0.0)
        assert task.done()

    asyncio.run(scenario())


def test_a_forgotten_cancellation_is_remembered() -> None:
    async def forgetful(began: asyncio.Event) -> None:
        await deaf(began, 0)
        raise_if_cancelled()
        raise AssertionError("it went on")

    async def scenario() -> None:
        raise_if_cancelled()  # of which there was none
        began = asyncio.Event()
        task = asyncio.create_task(forgetful(began))
        await began.wait()
        await end(task)
        assert task.cancelled()

    asyncio.run(scenario())
