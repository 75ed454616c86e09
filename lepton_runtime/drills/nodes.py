"""Drills that take worker nodes away, and bring them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from lepton_runtime.drills.drill import Drill
from lepton_runtime.drills.lab import Layout, until
from lepton_runtime.drills.stage import Stage
from lepton_runtime.local.plan import Service

__all__ = ["AgentKilled", "LighthouseNodeLost", "NodeJoins"]

# More than half of what a node of this machine offers; replicas claim nothing.
_ONE_A_NODE = 0.6 * max(2, os.cpu_count() or 1)


class AgentKilled(Drill):
    """The agent of a node dies, its ranks and replicas with it, and is started again."""

    name = "agent-killed"
    about = "kill -9 of the agent of a node that trains, which is started again"
    wanted = (("trains again", 1.5),)
    lasts_s = 8.0

    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Kill the agent that does not host the lighthouse; how long until others take a step."""
        host = await stage.lighthouse_node()
        victim = next(name for name in stage.lab.workers if name != host)
        stage.expected = {victim}
        hurt_at = time.time()
        await stage.lab.nodes[victim].kill()
        await stage.lab.start_node(stage.lab.nodes[victim].service)
        return {"trains again": await stage.run.trained_by(1, hurt_at) - hurt_at}


class LighthouseNodeLost(Drill):
    """The node of a job's lighthouse dies and stays away."""

    name = "lighthouse-lost"
    about = "kill -9 of the node that hosts the lighthouse, which stays away"
    wanted = (("trains again", 5.0),)
    lasts_s = 10.0

    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Kill it; how long until the others take a step."""
        victim = await stage.lighthouse_node()
        stage.expected = {victim}
        hurt_at = time.time()
        await stage.lab.nodes[victim].kill()
        return {"trains again": await stage.run.trained_by(1, hurt_at) - hurt_at}


class NodeJoins(Drill):
    """A job that would like more ranks gets a node."""

    name = "node-joins"
    about = "a node joins while a job trains"
    wanted = (("takes part", 10.0),)
    lasts_s = 30.0  # a node that has just come must load torch first
    layout = Layout(workers=1, rank_cpus=_ONE_A_NODE)
    ranks = 1

    async def hurt(self, stage: Stage) -> Mapping[str, float]:
        """Start a node; how long from when it is a member until its rank takes a step."""
        name = "worker-2"
        settings = stage.lab.nodes["worker-1"].service.settings
        await stage.lab.start_node(Service(name, "lepton_worker", settings))

        async def member() -> bool:
            return await stage.lab.node(name) is not None

        joined_at = await until(member, f"{name} is a member")
        try:
            return {"takes part": await stage.run.trained_by(2, joined_at) - joined_at}
        finally:
            stage.expected = {name}
            await stage.lab.nodes.pop(name).stop()
