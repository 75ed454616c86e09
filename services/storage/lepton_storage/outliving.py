"""Checkpoints that have outlived their job are removed."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from lepton_ai.proto.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_SUCCEEDED,
    Checkpoints,
    Job,
)
from lepton_ai.proto.v1.storage_pb2 import Object
from lepton_runtime import keys
from lepton_runtime.state import Record, Remove, State, Unchanged
from lepton_storage.manifests import Manifests

__all__ = ["CheckpointSweeper"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.outliving")
_ENDED = (JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED)


class CheckpointSweeper:
    """A `Chore`: a job that has ended, however it did, never goes on from a checkpoint again."""

    def __init__(self, state: State, manifests: Manifests) -> None:
        self._state = state
        self._manifests = manifests

    async def attend(self, manifests: Sequence[Object]) -> None:
        """Remove what is of no use any more."""
        for record in (await self._state.list(keys.CHECKPOINTS)).records:
            job_id = record.key.removeprefix(keys.CHECKPOINTS)
            if await self._has_ended(job_id):
                await self._remove(job_id, record)

    async def _has_ended(self, job_id: str) -> bool:
        job = await self._state.get(keys.job(job_id))
        return job is None or Job.FromString(job.value).state in _ENDED

    async def _remove(self, job_id: str, record: Record) -> None:
        unchanged = Unchanged(record.key, record.mod_revision)
        if await self._state.commit([unchanged], [Remove(record.key)]) is None:
            return  # a last one has just been stored: the next round sees it
        for checkpoint in Checkpoints.FromString(record.value).newest_first:
            await self._manifests.remove(checkpoint.object_id)
        _log.info("checkpoints_removed", job=job_id)
