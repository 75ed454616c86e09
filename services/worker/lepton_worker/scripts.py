"""Runs one rank of a user's own program, and tells what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_ai.errors import InvalidArgumentError, UnavailableError
from lepton_ai.packing import files_below
from lepton_ai.proto.v1 import job_pb2, task_pb2
from lepton_runtime.cancellation import end
from lepton_runtime.state import State
from lepton_worker.addresses import address_of
from lepton_worker.child import Child, start_child
from lepton_worker.devices import Devices
from lepton_worker.memory import out_of_memory, until_over
from lepton_worker.news import News
from lepton_worker.process_tree import descendants
from lepton_worker.program import Folders, command_of, environment_of
from lepton_worker.ranks import Statuses
from lepton_worker.resuming import JobCheckpoints
from lepton_worker.script_checkpoints import ScriptCheckpoints, unpack_object
from lepton_worker.settings import Listen
from lepton_worker.storage import WorkerStorage
from lepton_worker.trainers import Trainers

__all__ = ["ScriptRunner", "ending"]

_MAX_FILES = 256
_METRICS = "metrics.json"
_TOLD_LINES = 30
_TOLD_CHARACTERS = 3_000
_MAX_LINE = 4_096
# Signals that come from outside; others are the program's own doing.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@dataclass
class _Run:
    """One rank that runs."""

    task: task_pb2.Task
    warden: Child
    checkpoints: ScriptCheckpoints
    lines: deque[str] = field(default_factory=lambda: deque[str](maxlen=_TOLD_LINES))

    @property
    def rank(self) -> int:
        return self.task.script.rank


class ScriptRunner:
    """Runs scripts as tasks say.

    Args:
        state: Where the address of rank 0's store is.
        news: Told what they print.
        statuses: Hears how far they are.
        storage: Has the code, and takes results.
        trainers: Processes that can keep a rendezvous store.
        folder: Below it each has folders of its own.
        listen: Where stores listen.
        pids: Told the process of each task.
    """

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        state: State,
        news: News,
        statuses: Statuses,
        storage: WorkerStorage,
        trainers: Trainers,
        folder: Path,
        listen: Listen,
        pids: dict[str, int],
        devices: Devices,
    ) -> None:
        self._devices = devices
        self._state = state
        self._news = news
        self._statuses = statuses
        self._storage = storage
        self._trainers = trainers
        self._folder = folder
        self._listen = listen
        self._pids = pids
        self._checkpoints = JobCheckpoints(state, storage)

    async def run(self, task: task_pb2.Task) -> None:
        """Run a rank to its end; cancel to end it sooner."""
        folders = Folders(self._folder / f"{task.id}-{task.attempt}")
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(
                asyncio.to_thread, shutil.rmtree, folders.root, ignore_errors=True
            )
            checkpoints = await self._prepare(task, folders)
            gpus = await stack.enter_async_context(self._devices.taken(task.resources.gpus))
            store = await stack.enter_async_context(self._rendezvous(task))
            run = _Run(task, await start_child("lepton_worker.warden"), checkpoints)
            stack.push_async_callback(_finish, run.warden)
            stack.callback(self._pids.pop, task.id, None)
            self._pids[task.id] = run.warden.pid
            await run.warden.tell(
                {
                    "command": command_of(task.script),
                    "environment": environment_of(task, folders, store, gpus),
                    "folder": str(folders.source),
                }
            )
            own_store = "" if task.script.rank else store
            running = task_pb2.TaskStatus(state=task_pb2.TASK_STATE_RUNNING, address=own_store)
            await self._statuses.write(task, running)
            failure = await self._failure(run)
            status = failure or await self._success(folders.output)
            await self._statuses.write(task, status)

    async def _prepare(self, task: task_pb2.Task, folders: Folders) -> ScriptCheckpoints:
        """Bring the code and the newest checkpoint."""
        await asyncio.to_thread(shutil.rmtree, folders.root, ignore_errors=True)
        folders.make()
        source = await self._storage.fetch(task.script.spec.source_object)
        await asyncio.to_thread(unpack_object, source, folders.source, "code")
        checkpoints = ScriptCheckpoints(task, folders.checkpoints, self._checkpoints)
        await checkpoints.restore()
        return checkpoints

    @contextlib.asynccontextmanager
    async def _rendezvous(self, task: task_pb2.Task) -> AsyncGenerator[str]:
        """The address of the attempt's store, which is kept beside rank 0."""
        if task.script.rank:
            yield await address_of(self._state, task.script.store_task_id, task.attempt)
            return
        async with contextlib.AsyncExitStack() as stack:
            child = await stack.enter_async_context(self._trainers.one())
            stack.push_async_callback(_finish, child)
            await child.tell({"work": "store", "bind": self._listen.bind})
            async for event in child.events():
                if event["event"] == "listening":
                    address = f"{self._listen.host}:{event['port']}"
                    starting = task_pb2.TASK_STATE_STARTING
                    status = task_pb2.TaskStatus(state=starting, address=address)
                    await self._statuses.write(task, status)
                    yield address
                    return
        raise UnavailableError("the rendezvous store ended before it listened")

    async def _failure(self, run: _Run) -> task_pb2.TaskStatus | None:
        """Follow a rank to its end; what went wrong, or None."""
        printed = asyncio.create_task(self._forward(run))
        kept = asyncio.create_task(_keep_checkpoints(run))
        over = asyncio.create_task(until_over(run.warden.pid, run.task.resources.memory_bytes))
        ended = asyncio.create_task(_exit_status(run.warden))
        try:
            await asyncio.wait({over, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                _kill_below(run.warden.pid)
                limit = run.task.resources.memory_bytes
                return task_pb2.TaskStatus(
                    state=task_pb2.TASK_STATE_FAILED,
                    reason=out_of_memory(run.rank, over.result(), limit),
                    user_error=True,
                )
            await end(kept)
            await asyncio.wait({printed}, timeout=1.0)
            code = ended.result()
            if code >= 0 and not run.rank:
                await run.checkpoints.store()
            return ending(run.rank, code, list(run.lines))
        finally:
            for task in (printed, kept, over, ended):
                await end(task)

    async def _success(self, folder: Path) -> task_pb2.TaskStatus:
        """What a rank that ended well left behind.

        Raises:
            InvalidArgumentError: It left too many files.
        """
        files = await asyncio.to_thread(files_below, folder)
        if len(files) > _MAX_FILES:
            raise InvalidArgumentError(
                f"{len(files)} files are in LEPTON_OUTPUT_DIR",
                hint=f"at most {_MAX_FILES} are kept: pack them into one",
            )
        result = job_pb2.JobResult(metrics=_metrics(folder / _METRICS))
        for path in files:
            result.files.add(
                path=path.relative_to(folder).as_posix(),
                object_id=await self._storage.store(path),
                size_bytes=path.stat().st_size,
            )
        return task_pb2.TaskStatus(state=task_pb2.TASK_STATE_SUCCEEDED, result=result)

    async def _forward(self, run: _Run) -> None:
        async for text in run.warden.printed():
            run.lines.append(text)
            await self._news.printed(run.task.node_id, run.task.script, text)


def ending(rank: int, code: int, lines: list[str]) -> task_pb2.TaskStatus | None:
    """What the end of a program says of it; None where it ended well.

    Args:
        rank: Its rank.
        code: Its exit status, or minus the signal that ended it.
        lines: What it printed last.
    """
    if code == 0:
        return None
    outside = -code in _FROM_OUTSIDE
    if outside:
        reason = f"rank {rank} was killed ({signal.Signals(-code).name})"
    elif code < 0:
        reason = f"rank {rank} crashed ({signal.Signals(-code).name}){_told(lines)}"
    else:
        reason = f"rank {rank} ended with exit status {code}{_told(lines)}"
    return task_pb2.TaskStatus(
        state=task_pb2.TASK_STATE_FAILED, reason=reason, user_error=not outside
    )


def _told(lines: list[str]) -> str:
    """The last traceback among the lines, or else all of them."""
    begins = [at for at, text in enumerate(lines) if text.startswith("Traceback ")]
    text = "\n".join(lines[begins[-1] if begins else 0 :])
    return f":\n{text[-_TOLD_CHARACTERS:]}" if text else ""


def _metrics(path: Path) -> dict[str, float]:
    """The numbers of a metrics file; none where it is not there or holds something else."""
    try:
        found: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    numbers = {str(name): value for name, value in found.items()}  # pyright: ignore
    return {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


async def _keep_checkpoints(run: _Run) -> None:
    if not run.rank:
        await run.checkpoints.follow()


async def _exit_status(warden: Child) -> int:
    """How the program ended; as if killed where even its warden was."""
    async for event in warden.events():
        if event["event"] == "ended":
            return int(event["code"])
    return -signal.SIGKILL


async def _finish(child: Child) -> None:
    """End a child and read what is left of its words, so that its pipes are closed."""
    await child.stop()
    async for _ in child.events():
        pass
    async for _ in child.printed():
        pass


def _kill_below(pid: int) -> None:
    for each in descendants(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
