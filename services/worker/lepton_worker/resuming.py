"""Where a job goes on after the loss of every rank: its checkpoints, stored and recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

import structlog

from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1 import job_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.fencing import still_placed
from lepton_runtime.state import Absent, Record, State, Unchanged, Write

__all__ = ["JobCheckpoints", "Objects"]

# Where a job does not say; one before the newest is for the day when that cannot be read.
_KEPT = 2
_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.checkpoints")


class Objects(Protocol):
    """What is needed of the cluster's storage."""

    async def store(self, path: Path) -> str:
        """Store a file; returns its object's id."""
        ...

    async def fetch(self, object_id: str) -> Path:
        """The local file of an object."""
        ...

    async def delete(self, object_id: str) -> None:
        """Forget an object."""
        ...


class JobCheckpoints:
    """The checkpoints of jobs, newest first. Storage removes them once a job has ended."""

    def __init__(self, state: State, storage: Objects) -> None:
        self._state = state
        self._storage = storage
        # What is being kept is kept before it is dropped.
        self._changing = asyncio.Lock()

    async def keep(self, task: task_pb2.Task, step: int, path: Path) -> None:
        """Store a checkpoint, unless the task is gone or there is a newer one."""
        async with self._changing:
            await self._keep(task, step, path)

    async def newest(self, job_id: str) -> Path | None:
        """A file with the newest checkpoint that can be read, if there is any."""
        _, known = await self._known(job_id)
        for checkpoint in known:
            try:
                return await self._storage.fetch(checkpoint.object_id)
            except LeptonError as error:
                _log.warning(
                    "checkpoint unreadable", job=job_id, step=checkpoint.step, reason=str(error)
                )
        return None

    async def _keep(self, task: task_pb2.Task, step: int, path: Path) -> None:
        job_id = task.trainer.job_id or task.script.job_id
        record, known = await self._known(job_id)
        if known and known[0].step >= step:
            return
        object_id = await self._storage.store(path)
        new = job_pb2.Checkpoint(job_id=job_id, step=step, object_id=object_id)
        new.created_at.GetCurrentTime()
        count = task.trainer.spec.checkpoints_kept or _KEPT
        kept = job_pb2.Checkpoints(newest_first=[new, *known][:count])
        key = keys.checkpoints(job_id)
        unchanged = Unchanged(key, record.mod_revision) if record else Absent(key)
        write = Write(key, kept.SerializeToString())
        if await self._state.commit([still_placed(task), unchanged], [write]) is None:
            await self._delete(object_id)
            return
        for dropped in known[count - 1 :]:
            await self._delete(dropped.object_id)

    async def _delete(self, object_id: str) -> None:
        try:
            await self._storage.delete(object_id)
        except LeptonError as error:  # it costs room, no more
            _log.warning("checkpoint not removed", object=object_id, reason=str(error))

    async def _known(self, job_id: str) -> tuple[Record | None, list[job_pb2.Checkpoint]]:
        record = await self._state.get(keys.checkpoints(job_id))
        if record is None:
            return None, []
        return record, list(job_pb2.Checkpoints.FromString(record.value).newest_first)
