"""Each drill once, on a cluster of its own: `pytest tests/drills`; takes fifteen minutes.

`make drill` repeats them and measures.
"""

from __future__ import annotations

import asyncio

import pytest

from lepton_runtime.drills.catalogue import DRILLS
from lepton_runtime.drills.drill import repeated


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.name)
def test_what_must_hold_holds(drill):
    async def once():
        return [outcome async for outcome in repeated(drill, 1, seed=0)]

    (outcome,) = asyncio.run(once())
    assert not outcome.broken
    assert outcome.seconds.keys() == {name for name, _ in drill.wanted}
