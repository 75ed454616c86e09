from __future__ import annotations

import asyncio

from lepton_runtime.clock import ManualClock


def test_sleepers_wake_in_the_order_of_their_times():
    async def scenario() -> None:
        clock = ManualClock(100.0)
        woken: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append((name, clock.now()))

        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("late", 5))
            group.create_task(sleeper("early", 2))
            await asyncio.sleep(0)
            await clock.advance(1)
            assert woken == []
            await clock.advance(10)
        assert woken == [("early", 102.0), ("late", 105.0)]
        assert clock.now() == 111.0

    asyncio.run(scenario())


def test_a_cancelled_sleeper_does_not_stop_time():
    async def scenario() -> None:
        clock = ManualClock()
        sleeping = asyncio.create_task(clock.sleep(1))
        await asyncio.sleep(0)
        sleeping.cancel()
        await asyncio.wait([sleeping])
        await clock.advance(2)
        assert sleeping.cancelled()

    asyncio.run(scenario())
