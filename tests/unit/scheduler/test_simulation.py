"""Whatever happens to a cluster, the invariants hold.

A failing seed is named and replays: `every_job_ends(17)`.
"""

from __future__ import annotations

import pytest
from simulated_cluster import Simulation

from lepton_ai.proto.v1 import deployment_pb2, task_pb2
from lepton_scheduler.cluster import ENDED
from lepton_scheduler.core import decide

READY = deployment_pb2.DEPLOYMENT_STATE_READY
ROLLED_BACK = deployment_pb2.DEPLOYMENT_STATE_ROLLED_BACK
CHAOS_STEPS, CALM_STEPS = 60, 400
SEEDS = 100  # of each block: ten thousand in all


@pytest.mark.parametrize("block", range(100))
def test_every_job_ends(block: int) -> None:
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        try:
            every_job_ends(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def every_job_ends(seed: int) -> None:
    simulation = Simulation(seed)
    jobs = set(simulation.cluster.jobs)
    for _ in range(CHAOS_STEPS):
        simulation.step(chaos=0.3)
    simulation.calm()
    for _ in range(CALM_STEPS):
        simulation.step(chaos=0.0)
        if all(job.state in ENDED for job in simulation.cluster.jobs.values()):
            break
    # A replica that failed in the last chaotic step is tried again after 5 s, and starts.
    for _ in range(10):
        simulation.step(chaos=0.0)
    assert set(simulation.cluster.jobs) == jobs
    assert all(job.state in ENDED for job in simulation.cluster.jobs.values())
    assert all(task.HasField("replica") for task in simulation.cluster.tasks.values())
    every_rollout_ends(simulation)


def every_rollout_ends(simulation: Simulation) -> None:
    """Promoted or rolled back, whatever was asked for last."""
    for _ in range(400):
        deployment = simulation.cluster.deployments["digits"]
        if deployment.state in (READY, ROLLED_BACK):
            break
        simulation.step(chaos=0.0)
    assert deployment.state in (READY, ROLLED_BACK), deployment.reason
    promoted = deployment.serving_version == deployment.spec.version
    assert promoted is (deployment.state == READY)
    assert [(s.version, s.percent) for s in deployment.traffic] == [
        (deployment.serving_version, 100)
    ]
    replicas = simulation.cluster.of_deployment("digits")
    assert {t.replica.version for t in replicas if _key(t) not in deployment.leaving} == {
        deployment.serving_version
    }
    assert len(simulation.cluster.of_deployment("digits")) == deployment.spec.replicas
    assert decide(simulation.now, simulation.cluster) == []


def _key(task: task_pb2.Task) -> str:
    return f"{task.node_id}/{task.id}"


def test_a_seed_replays() -> None:
    def run() -> list[bytes]:
        simulation = Simulation(3)
        for _ in range(CHAOS_STEPS):
            simulation.step(chaos=0.3)
        return [task.SerializeToString() for task in simulation.cluster.tasks.values()]

    assert run() == run()
