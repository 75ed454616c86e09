"""How fast the scheduler decides: thousands of workers, tens of thousands of ranks.

Run: ``python bench/placement.py [--nodes 5000] [--ranks 50000]``. Jobs of ten ranks each are all
placed by one decision on an empty cluster; nothing is written. Then one more job comes.

Last, tasks of a real GPU cluster (``gpu-cluster/`` below ``LEPTON_DATASETS``, where it is there)
are drawn until they ask for as many accelerators as there are: how many are in use then?
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import time
from pathlib import Path

from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_scheduler.actions import PlaceGang
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.core import decide
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


def one_more(cluster: Cluster) -> float:
    """Seconds of a round in which one job comes, where all others train."""
    for job in cluster.jobs.values():
        job.state, job.reason = job_pb2.JOB_STATE_RUNNING, f"{RANKS} ranks train"
    cluster.statuses = {
        key: task_pb2.TaskStatus(
            task_id=task.id,
            node_id=task.node_id,
            attempt=task.attempt,
            state=task_pb2.TASK_STATE_RUNNING,
        )
        for key, task in cluster.tasks.items()
    }
    job = _job(len(cluster.jobs))
    cluster.jobs[job.id] = job
    began = time.perf_counter()
    (gang,) = decide(1.0, cluster)
    assert isinstance(gang, PlaceGang)
    return time.perf_counter() - began


def packed(folder: Path) -> tuple[int, int]:
    """Accelerators in use, and all there are, once tasks have asked for all of them."""
    with (folder / "openb_node_list_gpu_node.csv").open() as file:
        nodes = [_traced_node(row) for row in csv.DictReader(file)]
    with (folder / "openb_pod_list_default.csv").open() as file:
        # Those that share one accelerator are left out: ranks have whole ones.
        rows = [row for row in csv.DictReader(file) if row["gpu_milli"] in ("0", "1000")]
    rooms = Rooms({node.id: node for node in nodes}, [])
    whole = sum(node.capacity.gpus for node in nodes)
    chance, asked, used = random.Random(0), 0, 0
    while asked < whole:
        row = chance.choice(rows)
        need = _amount(row, row["num_gpu"])
        # Several models are allowed by some; a label is one.
        labels = {"gpu": row["gpu_spec"]} if row["gpu_spec"].isalnum() else {}
        asked += need.gpus
        if (node_id := rooms.choose(need, {}, labels)) is not None:
            rooms.take(node_id, need)
            used += need.gpus
    return used, whole


def _traced_node(row: dict[str, str]) -> node_pb2.Node:
    labels = {"gpu": row["model"]}
    return node_pb2.Node(id=row["sn"], capacity=_amount(row, row["gpu"]), labels=labels)


def _amount(row: dict[str, str], gpus: str) -> node_pb2.Resources:
    memory = int(row["memory_mib"]) << 20
    return node_pb2.Resources(cpus=int(row["cpu_milli"]) / 1e3, memory_bytes=memory, gpus=int(gpus))


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
            cluster.tasks |= {(task.node_id, task.id): task for task in action.tasks}
    p99_ms = sorted(times_s)[int(0.99 * len(times_s))] * 1e3
    rate = placed / (last - began)
    print(f"{placed} ranks on {options.nodes} nodes: {rate:,.0f} a second ({WANTED_RATE:,} wanted)")
    print(f"one decision, p99: {p99_ms:.2f} ms (at most {WANTED_P99_MS:g} wanted)")
    print(f"one job more, a whole round: {one_more(cluster) * 1e3:,.0f} ms")
    folder = Path(os.environ.get("LEPTON_DATASETS", "")) / "gpu-cluster"
    if folder.is_dir():
        used, whole = packed(folder)
        print(f"of {whole} accelerators of a real cluster {used / whole:.1%} are in use")


if __name__ == "__main__":
    main()
