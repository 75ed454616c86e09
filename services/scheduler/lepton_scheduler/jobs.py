"""Decisions about jobs: who comes first, and who makes room for whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lepton_ai.proto.v1 import job_pb2, task_pb2
from lepton_scheduler.actions import Action, RemoveTask
from lepton_scheduler.cluster import Cluster, job_of
from lepton_scheduler.gang import Gang
from lepton_scheduler.placement import Claim, Rooms
from lepton_scheduler.training import Training

__all__ = ["decide_jobs"]


def decide_jobs(
    now: float, cluster: Cluster, rooms: Rooms, unplaced: Iterable[Claim] = ()
) -> Iterator[Action]:
    """Actions for all jobs, the most urgent first.

    Args:
        now: Seconds since the epoch.
        cluster: What is wanted and what is there.
        rooms: What is free, kept up to date.
        unplaced: Replicas that found no room: serving borrows it from training.
    """
    tasks = cluster.by_job()
    jobs: list[Gang] = [
        Training(now, cluster, rooms, job, tasks.get(job.id, []))
        for job in sorted(cluster.jobs.values(), key=_urgency)
    ]
    for claim in unplaced:
        yield from _lend(claim, rooms, jobs)
    for job in jobs:
        if job.evicted:
            continue
        yield from job.decide()
        yield from job.preempt(jobs)
    # Only now: who waits for its first ranks goes before who would like more.
    for job in jobs:
        if not job.evicted:
            yield from job.grow()
    for task in list(cluster.tasks.values()):
        job_id = job_of(task)
        if job_id and job_id not in cluster.jobs:
            yield RemoveTask(task, "its job does not exist")


def _lend(claim: Claim, rooms: Rooms, jobs: list[Gang]) -> Iterator[Action]:
    """Take one rank, from a job that can do without, where that makes room for a replica."""
    for victim in (task for job in reversed(jobs) for task in job.spare()):
        rooms.give_back(victim.node_id, victim.resources)
        if victim.node_id not in claim.taken and rooms.fits(victim.node_id, claim.need):
            rooms.take(victim.node_id, claim.need)
            yield from _dropped(jobs, victim, "serving needs its place")
            return
        rooms.take(victim.node_id, victim.resources)


def _dropped(jobs: list[Gang], victim: task_pb2.Task, reason: str) -> Iterator[Action]:
    """Remove a rank of which the room is counted as free already."""
    for job in jobs:
        if victim in job.tasks:
            job.tasks.remove(victim)
            yield RemoveTask(victim, reason)


def _urgency(job: job_pb2.Job) -> tuple[int, int, str]:
    return (-job.spec.priority, job.created_at.ToNanoseconds(), job.id)
