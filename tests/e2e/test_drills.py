"""The quick ones of the drills, on one cluster; `make drill` runs them all, many times."""

from __future__ import annotations

import asyncio

import pytest

from lepton_runtime.drills.drill import perform
from lepton_runtime.drills.lab import Layout
from lepton_runtime.drills.ranks import RankKilled
from lepton_runtime.drills.schedulers import LeaderCutOff
from lepton_runtime.drills.servers import NatsRestarted
from lepton_runtime.drills.stage import open_stage

pytestmark = pytest.mark.e2e


def test_training_and_inference_go_on_whatever_is_hurt(tmp_path):
    async def performed():
        async with open_stage(tmp_path, Layout(schedulers=2), lasts_s=6) as stage:
            return [
                await perform(d, stage) for d in (RankKilled(), LeaderCutOff(), NatsRestarted())
            ]

    for outcome in asyncio.run(performed()):
        assert not outcome.broken
        assert outcome.seconds
