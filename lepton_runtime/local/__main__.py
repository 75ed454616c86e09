"""`python -m lepton_runtime.local --home FOLDER`: a local cluster until a signal ends it.

Standard output carries one JSON object a line: ``{"step": …}``, then ``{"ready": address}`` or
``{"error": …}``, and nothing after that. Where standard input is a pipe, its end ends the cluster,
so that none outlives whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
import stat
import sys
from pathlib import Path

from lepton_ai.cluster.profile import LOCK_FILE
from lepton_ai.errors import AlreadyExistsError, LeptonError
from lepton_runtime.local.plan import ClusterPlan
from lepton_runtime.local.supervisor import running_cluster
from lepton_runtime.processes import free_port
from lepton_runtime.telemetry import configure_logging


def main() -> int:
    """Run the cluster that the arguments describe."""
    plan = _plan()
    configure_logging("json", "local")
    try:
        lock = _locked(plan.home)
    except LeptonError as error:
        _write({"error": str(error)})
        return 1
    with os.fdopen(lock, "w"):
        return asyncio.run(_run(plan))


async def _run(plan: ClusterPlan) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        loop.add_reader(sys.stdin.fileno(), _stop_at_the_end_of_input, loop, stopping)
    work = asyncio.create_task(_cluster(plan))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    work.cancel()
    try:
        return await work
    except asyncio.CancelledError:
        return 0


async def _cluster(plan: ClusterPlan) -> int:
    try:
        async with running_cluster(plan, lambda step: _write({"step": step})) as profile:
            _write({"ready": profile.address})
            await asyncio.Event().wait()  # until cancelled
    except LeptonError as error:
        _write({"error": str(error)})
    return 1


def _stop_at_the_end_of_input(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        stopping.set()


def _plan() -> ClusterPlan:
    parser = argparse.ArgumentParser(prog="python -m lepton_runtime.local")
    parser.add_argument("--home", type=Path, required=True, help="folder of the cluster")
    parser.add_argument("--port", type=int, default=8080, help="of the gateway; 0: any free one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--storage", type=int, default=2)
    given = parser.parse_args()
    home: Path = given.home.absolute()
    return ClusterPlan(home, given.port or free_port(), given.workers, given.storage)


def _locked(home: Path) -> int:
    """Hold the folder for as long as this process lives, and say in it who does."""
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AlreadyExistsError(
            "a cluster is up already", hint="'lepton status' shows it, 'lepton down' ends it"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def _write(line: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
