"""Where tasks of this or other nodes answer, as their status tells."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from lepton_ai.errors import UnavailableError
from lepton_ai.proto.v1 import task_pb2
from lepton_runtime import keys
from lepton_runtime.state import Put, Snapshot, State

__all__ = ["address_of", "addresses_of"]


async def addresses_of(
    state: State, task_id: str, attempt: int | None = None
) -> AsyncGenerator[str]:
    """Each address that a task has, the present one first.

    Args:
        state: Where statuses are.
        task_id: The task.
        attempt: The only attempt that counts; None for any.
    """
    async for change in state.watch(keys.TASK_STATUS):
        records = change.records if isinstance(change, Snapshot) else ()
        for record in (change.record,) if isinstance(change, Put) else records:
            status = task_pb2.TaskStatus.FromString(record.value)
            wanted = status.task_id == task_id and attempt in (None, status.attempt)
            if wanted and status.address:
                yield status.address


async def address_of(state: State, task_id: str, attempt: int | None = None) -> str:
    """The address of a task, waiting for it to have one. Arguments as of `addresses_of`."""
    async with aclosing(addresses_of(state, task_id, attempt)) as addresses:
        async for address in addresses:
            return address
    raise UnavailableError(f"task {task_id} was not found")
