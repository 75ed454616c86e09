"""Replicas of deployments: models that this node's inference server has, and how it serves them."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from lepton_ai.errors import LeptonError, UnavailableError
from lepton_ai.proto.v1 import deployment_pb2, task_pb2
from lepton_worker.inference_server import InferenceServer
from lepton_worker.ranks import Statuses
from lepton_worker.storage import WorkerStorage

__all__ = ["Replicas"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.replicas")
_RETRY_S = 1.0


class Replicas:
    """Serves, and serves in another way when told to.

    Args:
        statuses: Hears how far they are.
        storage: Has the models.
        inference: Serves them.
    """

    def __init__(
        self, statuses: Statuses, storage: WorkerStorage, inference: InferenceServer
    ) -> None:
        self._statuses = statuses
        self._storage = storage
        self._inference = inference
        # What each replica is to serve, and whether that is news to it.
        self._wanted: dict[str, task_pb2.ReplicaTask] = {}
        self._changed: dict[str, asyncio.Event] = {}

    def change(self, task: task_pb2.Task) -> None:
        """Have a replica that runs serve as its task says by now."""
        if task.id in self._wanted:
            self._wanted[task.id] = task.replica
            self._changed[task.id].set()

    async def run(self, task: task_pb2.Task) -> None:
        """Serve until cancelled.

        Raises:
            LeptonError: It cannot be served at all.
        """
        self._wanted[task.id] = served = task.replica
        changed = self._changed[task.id] = asyncio.Event()
        try:
            await self._load(served)
            await self._say(task, served)
            while await changed.wait():
                changed.clear()
                served = await self._swap(task, served)
        finally:
            del self._wanted[task.id], self._changed[task.id]
            await self._inference.unload(task.replica.deployment, str(task.replica.version))

    async def _swap(
        self, task: task_pb2.Task, served: task_pb2.ReplicaTask
    ) -> task_pb2.ReplicaTask:
        """Serve what is wanted by now; where that fails, what was served before goes on."""
        wanted = self._wanted[task.id]
        try:
            await self._load(wanted)
        except LeptonError as error:
            _log.warning("served as before", task=task.id, reason=str(error))
            await self._say(task, served, str(error))
            if isinstance(error, UnavailableError):  # storage, or the server itself
                await asyncio.sleep(_RETRY_S)
                self._changed[task.id].set()
            return served
        await self._say(task, wanted)
        return wanted

    async def _load(self, replica: task_pb2.ReplicaTask) -> None:
        steps = replica.steps or [task_pb2.ReplicaStep(object_id=replica.object_id)]
        files = [
            {"path": str(await self._storage.fetch(step.object_id)), "inputs": dict(step.inputs)}
            for step in steps
        ]
        name, version = replica.deployment, str(replica.version)
        await self._inference.load(name, version, files, _options(replica.options))

    async def _say(
        self, task: task_pb2.Task, served: task_pb2.ReplicaTask, reason: str = ""
    ) -> None:
        status = task_pb2.TaskStatus(
            state=task_pb2.TASK_STATE_RUNNING,
            address=await self._inference.until_listening(),
            replica=served,
            reason=reason,
        )
        await self._statuses.write(task, status)


def _options(options: deployment_pb2.ServingOptions) -> dict[str, Any]:
    """What was given of the options, fit for JSON."""
    return {
        field.name: list(value) if field.is_repeated else value
        for field, value in options.ListFields()
    }
