"""What a decision may lead to. Each is one transaction, and says why."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_ai.proto.v1 import deployment_pb2, job_pb2, task_pb2

__all__ = [
    "Action",
    "PlaceGang",
    "PlaceTask",
    "RemoveTask",
    "UpdateDeployment",
    "UpdateJob",
    "UpdateTask",
]


@dataclass(frozen=True)
class PlaceGang:
    """Write all of a job's tasks and its new state at once: no job is ever half placed."""

    job: job_pb2.Job
    tasks: tuple[task_pb2.Task, ...]


@dataclass(frozen=True)
class PlaceTask:
    """Write a new task; `replaces` is removed in the same transaction."""

    task: task_pb2.Task
    reason: str
    replaces: task_pb2.Task | None = None


@dataclass(frozen=True)
class UpdateTask:
    """Change a task that its worker already has."""

    task: task_pb2.Task
    reason: str


@dataclass(frozen=True)
class RemoveTask:
    """Delete a task and what was said of it; its worker stops the process."""

    task: task_pb2.Task
    reason: str


@dataclass(frozen=True)
class UpdateJob:
    """Write a job's new state, provided nobody else has changed it meanwhile."""

    job: job_pb2.Job


@dataclass(frozen=True)
class UpdateDeployment:
    """Write how a deployment stands, provided nobody else has changed it meanwhile."""

    deployment: deployment_pb2.Deployment


Action = PlaceGang | PlaceTask | UpdateTask | RemoveTask | UpdateJob | UpdateDeployment
