"""A rank's further processes: copies of its first one, which live and die with it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from typing import BinaryIO

import orjson

from lepton_runtime.processes import die_with_parent
from lepton_worker.channel import AgentChannel
from lepton_worker.devices import see_only
from lepton_worker.fellows import Fellows
from lepton_worker.process_tree import is_stopped
from lepton_worker.work import RankWork

__all__ = ["fellows_of", "wait_for_notice"]

_log = logging.getLogger("lepton.fellows")
_LOOPBACK = "127.0.0.1"
# In all else the first process speaks for the rank.
_PASSED_ON = {"chunks_wanted", "failed"}
_NOTICED_S = 1.0
_LOOK_S = 1.0


@dataclass(frozen=True)
class _Fellow:
    index: int
    count: int
    pid: int
    heard: BinaryIO
    told: BinaryIO


def fellows_of(work: RankWork, channel: AgentChannel) -> Fellows:
    """Go on as one process for each shard, each with an accelerator of its own where there are any.

    What the agent says all of them hear. What the further ones say the first passes on, where it
    is not what it says itself. When one dies all do, and one that is stopped is ended: the first
    would tell other ranks that this one is well, and they would wait for it. Call this before
    there are any threads.

    Returns:
        In each process, all of them.
    """
    count = work.shards
    if count == 1:
        see_only(work.gpus)
        return Fellows()
    # Here rather than in each copy: it takes a second.
    from lepton_worker.fsdp import ShardingFellows

    with socket.create_server((_LOOPBACK, 0), backlog=count) as listening:
        port = listening.getsockname()[1]
        fellows: list[_Fellow] = []
        for index in range(1, count):
            fellow = _copy(index, count, fellows)
            if fellow is None:
                channel.reopen()
                see_only(work.gpus[index : index + 1])
                return ShardingFellows(index, count, port, None)
            fellows.append(fellow)
        for fellow in fellows:
            channel.pass_on(fellow.told)
            threading.Thread(target=_attend, args=(fellow, channel), daemon=True).start()
        threading.Thread(target=_watch, args=(fellows,), daemon=True).start()
        see_only(work.gpus[:1])
        return ShardingFellows(0, count, port, listening.detach())


def wait_for_notice(fellows: Fellows) -> None:
    """Where the cause of an error may be that a fellow has died: wait until that is noticed.

    Then this process ends, and what is told is the cause.
    """
    if fellows.count > 1:
        time.sleep(_NOTICED_S)


def _copy(index: int, count: int, older: list[_Fellow]) -> _Fellow | None:
    """Fork; None in the copy, whose standard input and output lead to the first process."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        heard = os.fdopen(os.dup(ours.fileno()), "rb")
        return _Fellow(index, count, pid, heard, os.fdopen(ours.detach(), "wb", buffering=0))
    die_with_parent()
    ours.close()
    for fellow in older:
        # Or their ends would not be seen.
        fellow.heard.close()
        fellow.told.close()
    os.dup2(theirs.fileno(), 0)
    os.dup2(theirs.fileno(), 1)
    theirs.close()
    return None


def _watch(fellows: list[_Fellow]) -> None:
    """End those that are found stopped twice in a row."""
    stopped: set[int] = set()
    while True:
        time.sleep(_LOOK_S)
        found = {fellow.pid for fellow in fellows if is_stopped(fellow.pid)}
        for pid in found & stopped:
            _log.warning("process %d of this rank was stopped and is ended", pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        stopped = found


def _attend(fellow: _Fellow, channel: AgentChannel) -> None:
    """Pass on what a fellow says; at its end everything ends."""
    try:
        for line in fellow.heard:
            message = orjson.loads(line)
            if (event := message.pop("event")) in _PASSED_ON:
                channel.tell(event, **message)
    finally:
        os.waitpid(fellow.pid, 0)
        error = f"its process {fellow.index} of {fellow.count} died"
        with contextlib.suppress(OSError):  # the agent may have ended as well
            channel.tell("failed", error=error, user_error=False)
        os._exit(1)
