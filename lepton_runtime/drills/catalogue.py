"""Every drill there is."""

from __future__ import annotations

from lepton_runtime.drills.drill import Drill
from lepton_runtime.drills.nodes import AgentKilled, LighthouseNodeLost, NodeJoins
from lepton_runtime.drills.ranks import EveryRankKilled, RankKilled, RankStopped
from lepton_runtime.drills.schedulers import LeaderCutOff, LeaderKilled, LeaderStopped
from lepton_runtime.drills.servers import EtcdDown, NatsRestarted

__all__ = ["DRILLS"]

DRILLS: tuple[Drill, ...] = (
    RankKilled(),
    AgentKilled(),
    EveryRankKilled(),
    NodeJoins(),
    RankStopped(),
    LeaderKilled(),
    LeaderStopped(),
    LeaderCutOff(),
    EtcdDown(),
    NatsRestarted(),
    LighthouseNodeLost(),
)
