"""Drills that take the leading scheduler away, by three means."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from abc import abstractmethod
from collections.abc import Mapping

from lepton_runtime.drills.drill import Drill
from lepton_runtime.drills.lab import Layout
from lepton_runtime.drills.stage import Stage
from lepton_runtime.drills.training import result_of

__all__ = ["LeaderCutOff", "LeaderKilled", "LeaderStopped"]

_EPOCHS = 3
# For what a leader of the past may still write when it comes back.
_AFTERWARDS_S = 2.0


class _LeaderLost(Drill):
    """A job is submitted while nobody leads."""

    wanted = (("new leader", 4.0), ("first placement", 5.0))
    lasts_s = 8.0
    layout = Layout(schedulers=2)

    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Take the leader away; how long until another leads, and places what is new."""
        leader = await stage.leader()
        stage.expected = {leader}
        hurt_at = time.time()
        await self.take_away(stage, leader)
        try:
            job_id = await stage.submit(_EPOCHS)
            led_at, placed_at = await stage.led_anew(hurt_at), await stage.placed(job_id)
        finally:
            await self.give_back(stage, leader)
        await asyncio.sleep(_AFTERWARDS_S)
        await result_of(stage.lab, job_id)
        return {"new leader": led_at - hurt_at, "first placement": placed_at - hurt_at}

    @abstractmethod
    async def take_away(self, stage: Stage, leader: str) -> None:
        """Make the leader unable to lead."""

    @abstractmethod
    async def give_back(self, stage: Stage, leader: str) -> None:
        """Undo that."""


class LeaderKilled(_LeaderLost):
    """The leading scheduler dies."""

    name = "leader-killed"
    about = "kill -9 of the scheduler that leads"

    async def take_away(self, stage: Stage, leader: str) -> None:
        """Kill it."""
        await stage.lab.nodes[leader].kill()

    async def give_back(self, stage: Stage, leader: str) -> None:
        """Start it again."""
        await stage.lab.start_node(stage.lab.nodes[leader].service)


class LeaderStopped(_LeaderLost):
    """The leading scheduler hangs, and wakes up believing that it leads."""

    name = "leader-stopped"
    about = "SIGSTOP of the scheduler that leads, then SIGCONT"

    async def take_away(self, stage: Stage, leader: str) -> None:
        """Stop it."""
        os.kill(stage.lab.nodes[leader].pid, signal.SIGSTOP)

    async def give_back(self, stage: Stage, leader: str) -> None:
        """Let it go on."""
        os.kill(stage.lab.nodes[leader].pid, signal.SIGCONT)


class LeaderCutOff(_LeaderLost):
    """The leading scheduler reaches etcd no more; what it sent arrives when the link is whole."""

    name = "leader-cut-off"
    about = "the link between the scheduler that leads and etcd is cut, then mended"

    async def take_away(self, stage: Stage, leader: str) -> None:
        """Cut its link."""
        stage.lab.links[leader].cut()

    async def give_back(self, stage: Stage, leader: str) -> None:
        """Mend it."""
        stage.lab.links[leader].mend()
