"""What has outlived its job is removed: checkpoints, and what came of single shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import structlog

from lepton_ai.proto.v1.job_pb2 import Checkpoints, Job
from lepton_ai.proto.v1.storage_pb2 import Object
from lepton_ai.proto.v1.task_pb2 import Shard
from lepton_runtime import keys
from lepton_runtime.state import Record, Remove, State, Unchanged
from lepton_storage.jobs import ENDED
from lepton_storage.manifests import Manifests

__all__ = ["JobSweeper"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.outliving")


class JobSweeper:
    """A `Chore`: a job that has ended, however it did, never goes on from where it was."""

    def __init__(self, state: State, manifests: Manifests) -> None:
        self._state = state
        self._manifests = manifests

    async def attend(self, manifests: Sequence[Object]) -> None:
        """Remove what is of no use any more."""
        for record in (await self._state.list(keys.CHECKPOINTS)).records:
            if await self._has_ended(record.key.removeprefix(keys.CHECKPOINTS)):
                kept = Checkpoints.FromString(record.value).newest_first
                await self._remove(record, (checkpoint.object_id for checkpoint in kept))
        shards: defaultdict[str, list[Record]] = defaultdict(list)
        for record in (await self._state.list(keys.SHARDS)).records:
            shards[record.key.removeprefix(keys.SHARDS).partition("/")[0]].append(record)
        for job_id, records in shards.items():
            if await self._has_ended(job_id):
                for record in records:
                    result = Shard.FromString(record.value).result_object
                    await self._remove(record, [result] if result else [])

    async def _has_ended(self, job_id: str) -> bool:
        job = await self._state.get(keys.job(job_id))
        return job is None or Job.FromString(job.value).state in ENDED

    async def _remove(self, record: Record, object_ids: Iterable[str]) -> None:
        unchanged = Unchanged(record.key, record.mod_revision)
        if await self._state.commit([unchanged], [Remove(record.key)]) is None:
            return  # something came just now: the next round sees it
        for object_id in object_ids:
            await self._manifests.remove(object_id)
        _log.info("outlived_its_job", record=record.key)
