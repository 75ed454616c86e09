"""Leaders that were deposed, views that lag, requests and answers that are lost.

A failing seed is named and replays: `every_job_ends(17)`.
"""

from __future__ import annotations

from collections import Counter

import pytest
from contested_cluster import Contest

from lepton_scheduler.cluster import ENDED
from lepton_scheduler.core import decide

CHAOS_STEPS, CALM_STEPS = 30, 300
SEEDS = 50


@pytest.mark.parametrize("block", range(20))
def test_every_job_ends(block: int) -> None:
    seen = Counter[str]()
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        try:
            seen += every_job_ends(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    for kind in ("elections", "deposed", "losses", "stale writes refused"):
        assert seen[kind] > SEEDS, f"too quiet: {seen}"


def every_job_ends(seed: int) -> Counter[str]:
    contest = Contest(seed)
    jobs = set(contest.cluster.jobs)
    for _ in range(CHAOS_STEPS):
        contest.step(chaos=0.3)
    contest.calm()
    for _ in range(CALM_STEPS):
        contest.step(chaos=0.0)
        cluster = contest.cluster
        if not cluster.tasks and all(job.state in ENDED for job in cluster.jobs.values()):
            break
    assert set(cluster.jobs) == jobs
    assert all(job.state in ENDED for job in cluster.jobs.values()), "a job starves"
    assert not cluster.tasks
    assert decide(contest.time, cluster) == []
    return contest.seen
