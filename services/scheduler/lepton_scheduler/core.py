"""What to do next: a pure function of what is wanted and what is there.

Level-triggered: it looks at everything as it stands, so that a lost event, a new leader or a
repeated call leads to the same place.
"""

from __future__ import annotations

from lepton_scheduler.actions import Action
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.deployments import decide_deployments
from lepton_scheduler.jobs import decide_jobs
from lepton_scheduler.placement import Claim, Rooms

__all__ = ["decide"]


def decide(now: float, cluster: Cluster) -> list[Action]:
    """Actions that bring the cluster nearer to what is wanted, in order.

    Serving goes first: a replica that is missing costs requests, a rank that waits costs time.

    Args:
        now: Seconds since the epoch.
        cluster: What is wanted and what is there.
    """
    rooms = Rooms(cluster.open_workers(), cluster.alive())
    unplaced: list[Claim] = []
    return [
        *decide_deployments(now, cluster, rooms, unplaced),
        *decide_jobs(now, cluster, rooms, unplaced),
    ]
