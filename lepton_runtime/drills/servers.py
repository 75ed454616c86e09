"""Drills that take etcd and NATS away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from lepton_ai.errors import DeadlineExceededError
from lepton_runtime.drills.drill import Drill
from lepton_runtime.drills.stage import Stage
from lepton_runtime.drills.training import result_of, told_at

__all__ = ["EtcdDown", "NatsRestarted"]

_EPOCHS = 3
# Longer than any lease, for what is declared dead too late.
_AFTERWARDS_S = 6.0


class EtcdDown(Drill):
    """etcd is away for a minute: nothing is decided, and everything goes on."""

    name = "etcd-down"
    about = "kill -9 of etcd, which is away for 60 s"
    wanted = (("converged", 5.0),)
    lasts_s = 75.0
    _DOWN_S = 60.0

    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Kill it; how long from its return until a new job is placed."""
        await stage.lab.etcd.kill()
        down_at, answered = time.time(), stage.load.answered
        await asyncio.sleep(self._DOWN_S)
        late = [p for p in stage.run.told if told_at(p) > down_at + self._DOWN_S / 2]
        if not late or stage.load.answered == answered:
            raise DeadlineExceededError("neither training nor inference goes on without etcd")
        await stage.lab.etcd.start_again()
        back_at = time.time()
        job_id = await stage.submit(_EPOCHS)
        placed_at = await stage.placed(job_id)
        await asyncio.sleep(_AFTERWARDS_S)
        await result_of(stage.lab, job_id)
        return {"converged": placed_at - back_at}


class NatsRestarted(Drill):
    """The broker dies and comes back: what is told arrives again."""

    name = "nats-restarted"
    about = "kill -9 of nats-server, which is started again"
    wanted = (("converged", 5.0),)
    lasts_s = 10.0

    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Kill it; how long from its return until progress is heard."""
        await stage.lab.nats.kill()
        await asyncio.sleep(stage.random.uniform(0.0, 2.0))
        await stage.lab.nats.start_again()
        back_at = time.time()
        progress = await stage.run.until(lambda p: told_at(p) > back_at, "progress")
        return {"converged": told_at(progress) - back_at}
