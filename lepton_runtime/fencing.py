"""What an attempt at a task writes is accepted only while it is the one that is placed."""

from __future__ import annotations

from lepton_ai.proto.v1.task_pb2 import Task
from lepton_runtime import keys
from lepton_runtime.state import Created

__all__ = ["still_placed"]


def still_placed(task: Task) -> Created:
    """The condition under which an attempt may write, for the transaction that writes.

    A rank that was stopped, replaced and continued does not know that it is of the past; whoever
    commits does.

    Args:
        task: With `placed_revision`, as its agent read it.
    """
    return Created(keys.task(task.node_id, task.id, task.attempt), task.placed_revision)
