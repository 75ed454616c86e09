"""The life of a job: each step of it leaves a line in the job's history."""

from __future__ import annotations

from lepton_ai.proto.v1 import job_pb2
from lepton_scheduler.cluster import ENDED

__all__ = ["moved"]

_REMEMBERED = 64


def moved(
    job: job_pb2.Job, state: job_pb2.JobState, reason: str, now: float, *, anew: bool = False
) -> job_pb2.Job:
    """A copy of a job that has come to `state`.

    Args:
        job: As it was; left alone.
        state: What it is now.
        reason: Why, for people.
        now: Seconds since the epoch.
        anew: Begin another attempt.
    """
    fresh = job_pb2.Job()
    fresh.CopyFrom(job)
    fresh.state, fresh.reason = state, reason
    fresh.attempt += anew
    if state == job_pb2.JOB_STATE_RUNNING and not fresh.HasField("started_at"):
        fresh.started_at.FromNanoseconds(int(now * 1e9))
    if state in ENDED:
        fresh.finished_at.FromNanoseconds(int(now * 1e9))
    _remember(fresh, now)
    return fresh


def _remember(job: job_pb2.Job, now: float) -> None:
    step = job_pb2.JobTransition(state=job.state, reason=job.reason, attempt=job.attempt)
    step.at.FromNanoseconds(int(now * 1e9))
    last = job.history[-1] if job.history else job_pb2.JobTransition()
    waits = step.state == last.state == job_pb2.JOB_STATE_QUEUED and step.attempt == last.attempt
    if waits:  # what it waits for changes often
        last.reason = step.reason
        return
    job.history.append(step)
    del job.history[:-_REMEMBERED]
