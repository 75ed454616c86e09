"""How fast the scheduler decides: thousands of workers, tens of thousands of ranks.

Run: ``python bench/placement.py [--nodes 5000] [--ranks 50000]``. Jobs of ten ranks each are all
placed by one decision on an empty cluster; nothing is written.
"""

from __future__ import annotations

import argparse
import time

from lepton_ai.proto.v1 import job_pb2, node_pb2
from lepton_scheduler.actions import PlaceGang
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.jobs import decide_jobs
from lepton_scheduler.placement import Rooms

RANKS = 10  # of a job
WANTED_RATE, WANTED_P99_MS = 5_000, 10.0


def cluster_of(nodes: int, jobs: int) -> Cluster:
    """Workers of 16 processors, and jobs that wait."""
    return Cluster(
        workers={node.id: node for node in (_worker(number) for number in range(nodes))},
        jobs={job.id: job for job in (_job(number) for number in range(jobs))},
    )


def _worker(number: int) -> node_pb2.Node:
    capacity = node_pb2.Resources(cpus=16, memory_bytes=64 << 30)
    return node_pb2.Node(id=f"w-{number:05}", incarnation="1", capacity=capacity)


def _job(number: int) -> job_pb2.Job:
    job = job_pb2.Job(id=f"j-{number:05}", state=job_pb2.JOB_STATE_QUEUED)
    job.spec.workers.min, job.spec.workers.max = RANKS // 2, RANKS
    job.spec.resources.cpus = 1
    job.spec.train.SetInParent()
    job.created_at.FromSeconds(number + 1)
    return job


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--ranks", type=int, default=50_000)
    options = parser.parse_args()
    cluster = cluster_of(options.nodes, options.ranks // RANKS)
    began = last = time.perf_counter()
    rooms = Rooms(cluster.open_workers(), cluster.alive())
    placed, times_s = 0, list[float]()
    for action in decide_jobs(0.0, cluster, rooms):
        now = time.perf_counter()
        times_s.append(now - last)
        last = now
        if isinstance(action, PlaceGang):
            placed += sum(task.HasField("trainer") for task in action.tasks)
    p99_ms = sorted(times_s)[int(0.99 * len(times_s))] * 1e3
    rate = placed / (last - began)
    print(f"{placed} ranks on {options.nodes} nodes: {rate:,.0f} a second ({WANTED_RATE:,} wanted)")
    print(f"one decision, p99: {p99_ms:.2f} ms (at most {WANTED_P99_MS:g} wanted)")


if __name__ == "__main__":
    main()
