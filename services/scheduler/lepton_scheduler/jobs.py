"""Decisions about jobs: who comes first, and who makes room for whom."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby

from lepton_ai.proto.v1 import task_pb2
from lepton_scheduler.actions import Action, PlaceGang, RemoveTask
from lepton_scheduler.cluster import Cluster, job_of
from lepton_scheduler.gang import Gang
from lepton_scheduler.placement import Claim, Rooms
from lepton_scheduler.scoring import Scoring
from lepton_scheduler.scripts import Script
from lepton_scheduler.shares import Shares
from lepton_scheduler.training import Training

__all__ = ["decide_jobs"]

_KINDS: dict[str | None, type[Gang]] = {"train": Training, "script": Script, "score": Scoring}


def decide_jobs(
    now: float, cluster: Cluster, rooms: Rooms, unplaced: Iterable[Claim] = ()
) -> Iterator[Action]:
    """Actions for all jobs: by priority, then whoever waits too long, then by fair share.

    Args:
        now: Seconds since the epoch.
        cluster: What is wanted and what is there.
        rooms: What is free, kept up to date.
        unplaced: Replicas that found no room: serving borrows it from training.
    """
    tasks, shares = cluster.by_job(), Shares(cluster)
    gangs = (
        _KINDS[job.spec.WhichOneof("work")](now, cluster, rooms, job, tasks.get(job.id, []))
        for job in cluster.jobs.values()
    )
    jobs: list[Gang] = sorted(gangs, key=lambda gang: _turn(gang, shares))
    for claim in unplaced:
        yield from _lend(claim, rooms, jobs)
    reserved = False
    for job in _turns(jobs, shares):
        if job.evicted:
            continue
        for action in job.decide():
            if isinstance(action, PlaceGang):
                shares.add(job.job.tenant, action.tasks)
            yield action
        yield from job.preempt(jobs, shares)
        if job.waits and job.is_impatient and not reserved:
            reserved = job.reserve()
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
        free = rooms.fits(victim.node_id, claim.need, claim.labels)
        if free and victim.node_id not in claim.taken:
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


def _turns(jobs: Iterable[Gang], shares: Shares) -> Iterator[Gang]:
    """Jobs in their turn, as shares grow while they are placed."""
    for (_, impatient), level in groupby(jobs, _level):
        queues: dict[str, deque[Gang]] = {}
        for job in level:
            queues.setdefault("" if impatient else job.job.tenant, deque()).append(job)
        while queues:
            tenant = min(queues, key=shares.of)
            yield queues[tenant].popleft()
            if not queues[tenant]:
                del queues[tenant]


def _level(gang: Gang) -> tuple[int, bool]:
    return -gang.job.spec.priority, gang.is_impatient


def _turn(gang: Gang, shares: Shares) -> tuple[int, bool, float, int, str]:
    """Before whom a job comes; no two are equal."""
    priority, impatient = _level(gang)
    share = 0.0 if impatient else shares.of(gang.job.tenant)
    return (priority, not impatient, share, gang.job.created_at.ToNanoseconds(), gang.job.id)
