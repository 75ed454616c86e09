"""Drills that hurt the ranks of a job."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping

from lepton_runtime import keys
from lepton_runtime.drills.drill import Drill
from lepton_runtime.drills.lab import until
from lepton_runtime.drills.stage import Stage
from lepton_runtime.drills.training import told_at

__all__ = ["EveryRankKilled", "RankKilled", "RankStopped"]

# What a rank told just before it died may be heard just after.
_ECHO_S = 0.1


class RankKilled(Drill):
    """A rank is killed; it is placed again, and joins."""

    name = "rank-killed"
    about = "kill -9 of a rank"
    wanted = (("trains again", 1.5),)
    lasts_s = 8.0

    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Kill one; how long until the others take a step."""
        victim = stage.random.choice(await stage.ranks())
        hurt_at = time.time()
        os.kill(victim.pid, signal.SIGKILL)
        return {"trains again": await stage.run.trained_by(1, hurt_at) - hurt_at}


class EveryRankKilled(Drill):
    """All ranks are killed; the job goes on from its newest checkpoint."""

    name = "every-rank-killed"
    about = "kill -9 of every rank of a job"
    wanted = (("trains again", 10.0),)
    lasts_s = 8.0
    loses_steps = True

    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Kill all, once there is a checkpoint; how long until a rank takes a step."""

        async def stored() -> bool:
            return await stage.lab.state.get(keys.checkpoints(stage.run.job_id)) is not None

        await until(stored, "there is a checkpoint")
        ranks = await stage.ranks()
        hurt_at = time.time()
        for rank in ranks:
            os.kill(rank.pid, signal.SIGKILL)
        later = hurt_at + _ECHO_S
        again = await stage.run.until(lambda p: told_at(p) > later, "step after the kill")
        return {"trains again": told_at(again) - hurt_at}


class RankStopped(Drill):
    """A rank hangs for half a minute, then goes on as if nothing had been."""

    name = "rank-stopped"
    about = "SIGSTOP of a rank for 30 s, then SIGCONT"
    wanted = (("trains again", 10.0),)
    lasts_s = 35.0
    _STOPPED_S = 30.0

    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Stop one; how long until the others take a step."""
        victim = stage.random.choice(await stage.ranks())
        hurt_at = time.time()
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            again = await stage.run.trained_by(1, hurt_at)
            await asyncio.sleep(hurt_at + self._STOPPED_S - time.time())
        finally:
            _go_on(victim.pid)
        return {"trains again": again - hurt_at}


def _go_on(pid: int) -> None:
    """Continue a process, unless it was ended meanwhile."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return
