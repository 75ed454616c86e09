"""When a task is tried again, and when no more: lost nodes are counted apart from failures."""

from __future__ import annotations

from lepton_ai.proto.v1 import task_pb2

__all__ = ["again", "back_off_s", "is_spent", "may_follow"]

# What fails this often for no fault of the user's takes the job with it.
MAX_FAILURES = 4
_BACK_OFF_S, _MAX_BACK_OFF_S = 1.0, 60.0
# An attempt that lived this long says nothing against its task, or the nodes it is given.
_LONG_S = 600.0


def again(task: task_pb2.Task, now: float, *, lost: bool, failed: bool) -> task_pb2.Task:
    """The next attempt at a task, not yet addressed to a node.

    Args:
        task: The attempt before.
        now: Seconds since the epoch.
        lost: Whether its node was lost.
        failed: Whether it failed by itself. One that is moved did neither.
    """
    fresh = task_pb2.Task()
    fresh.CopyFrom(task)
    fresh.attempt += 1
    if now - _placed_at(task) > _LONG_S:
        fresh.failures = fresh.losses = 0
    fresh.losses += lost
    fresh.failures += failed
    return fresh


def may_follow(task: task_pb2.Task, now: float, failed_at: float | None) -> bool:
    """Whether the next attempt need not wait any more.

    The first loss of a node costs no wait. Where a task loses nodes again and again, its attempts
    come ever less often; so do those of one that fails by itself.

    Args:
        task: The attempt before.
        now: Seconds since the epoch.
        failed_at: When it failed by itself; None where its node was lost.
    """
    if failed_at is not None:
        return now >= failed_at + back_off_s(task.failures + 1)
    return not task.losses or now >= _placed_at(task) + back_off_s(task.losses + 1)


def back_off_s(times: int) -> float:
    """Seconds to wait after something went wrong so many times: twice as long each time."""
    return min(_MAX_BACK_OFF_S, _BACK_OFF_S * 2 ** (times - 1))


def is_spent(task: task_pb2.Task) -> bool:
    """Whether one more failure is one too many."""
    return task.failures + 1 >= MAX_FAILURES


def _placed_at(task: task_pb2.Task) -> float:
    return task.placed_at.ToNanoseconds() / 1e9
