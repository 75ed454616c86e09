"""Jobs, as far as storage cares: whether they may still need what is stored."""

from __future__ import annotations

from lepton_ai.proto.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_SUCCEEDED,
    Job,
)
from lepton_runtime import keys
from lepton_runtime.state import State

__all__ = ["ENDED", "unfinished_jobs"]

ENDED = (JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED)


async def unfinished_jobs(state: State) -> list[Job]:
    """Jobs that have not ended."""
    records = (await state.list(keys.JOBS)).records
    jobs = (Job.FromString(record.value) for record in records)
    return [job for job in jobs if job.state not in ENDED]
