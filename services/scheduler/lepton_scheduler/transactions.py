"""An action as a transaction: it holds only where the view that it came from does."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from lepton_ai.proto.v1 import task_pb2
from lepton_runtime import keys
from lepton_runtime.state import Absent, Condition, Operation, Remove, Unchanged, Write
from lepton_scheduler.actions import (
    Action,
    PlaceGang,
    PlaceTask,
    RemoveTask,
    UpdateDeployment,
    UpdateJob,
    UpdateTask,
)

__all__ = ["transaction"]

_Parts = tuple[list[Condition], list[Operation]]


def transaction(action: Action, revisions: Mapping[str, int], token: int) -> _Parts:
    """Conditions and operations of an action.

    Args:
        action: What was decided.
        revisions: Of each key's last write, as the decision saw it.
        token: Of the leader that decides. That it still leads is a condition of its own.
    """
    match action:
        case PlaceGang(job=job, tasks=tasks):
            conditions, operations = _update(keys.job(job.id), job, revisions)
            for task in tasks:
                placed = _placement(task, token)
                conditions += placed[0]
                operations += placed[1]
            return conditions, operations
        case PlaceTask(task=task, replaces=replaces):
            conditions, operations = _removal(replaces, revisions) if replaces else ([], [])
            placed = _placement(task, token)
            return [*conditions, *placed[0]], [*operations, *placed[1]]
        case UpdateTask(task=task):
            task.fencing_token = token
            return _update(_key(task), task, revisions)
        case RemoveTask(task=task):
            return _removal(task, revisions)
        case UpdateJob(job=job):
            return _update(keys.job(job.id), job, revisions)
        case UpdateDeployment(deployment=deployment):
            return _update(keys.deployment(deployment.spec.name), deployment, revisions)


def _placement(task: task_pb2.Task, token: int) -> _Parts:
    task.fencing_token = token
    return [Absent(_key(task))], [Write(_key(task), task.SerializeToString())]


def _update(key: str, message: Message, revisions: Mapping[str, int]) -> _Parts:
    unchanged = Unchanged(key, revisions.get(key, -1))
    return [unchanged], [Write(key, message.SerializeToString())]


def _removal(task: task_pb2.Task, revisions: Mapping[str, int]) -> _Parts:
    status = keys.task_status(task.node_id, task.id)
    unchanged = Unchanged(_key(task), revisions.get(_key(task), -1))
    return [unchanged], [Remove(_key(task)), Remove(status)]


def _key(task: task_pb2.Task) -> str:
    return keys.task(task.node_id, task.id, task.attempt)
