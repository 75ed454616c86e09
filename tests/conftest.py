"""Fixtures that every kind of test may use. Servers are real, on free ports, and always ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from lepton_runtime.servers import ServerProcess, start_etcd, start_nats

_ResultT = TypeVar("_ResultT")
_TIMEOUT_S = 60.0
# Data sets may lie next to the checkout, where nothing need be downloaded.
_NEXT_TO_THE_CHECKOUT = Path(__file__).parents[2] / "shared/data"

if _NEXT_TO_THE_CHECKOUT.is_dir():
    os.environ.setdefault("LEPTON_DATASETS", str(_NEXT_TO_THE_CHECKOUT))


# A machine that is busy with other things is no fault of what is tested.
settings.register_profile("lepton", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lepton")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing of the caller's cluster leaks into a test."""
    patch = pytest.MonkeyPatch()
    names = ("ADDRESS", "API_KEY", "AUTHORITY", "HOME", "CONFIG")
    for name in (f"LEPTON_{name}" for name in names):
        patch.delenv(name, raising=False)
    config.add_cleanup(patch.undo)


class LoopThread:
    """An event loop that outlives the loops of single tests, for servers that many share."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="servers")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _ResultT]) -> _ResultT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()


@dataclass(frozen=True)
class Server:
    """A server for tests in any loop or in none."""

    process: ServerProcess
    thread: LoopThread

    @property
    def address(self) -> str:
        return self.process.address

    def kill(self) -> None:
        self.thread.run(self.process.kill())

    def start_again(self) -> None:
        self.thread.run(self.process.start_again())

    def stop(self) -> None:
        self.thread.run(self.process.stop())


@pytest.fixture(scope="session")
def server_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@contextmanager
def _running(process: ServerProcess, thread: LoopThread) -> Iterator[Server]:
    server = Server(process, thread)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def etcd(server_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real etcd that all tests share: use keys or names of your own."""
    process = server_thread.run(start_etcd(tmp_path_factory.mktemp("etcd")))
    with _running(process, server_thread) as server:
        yield server


@pytest.fixture(scope="session")
def nats(server_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real NATS server that all tests share: use job ids of your own."""
    process = server_thread.run(start_nats(tmp_path_factory.mktemp("nats")))
    with _running(process, server_thread) as server:
        yield server


@pytest.fixture
def own_etcd(server_thread: LoopThread, tmp_path: Path) -> Iterator[Server]:
    """A real etcd for one test, which may kill it."""
    with _running(server_thread.run(start_etcd(tmp_path)), server_thread) as server:
        yield server


@pytest.fixture
def own_nats(server_thread: LoopThread, tmp_path: Path) -> Iterator[Server]:
    """A real NATS server for one test, which may kill it."""
    with _running(server_thread.run(start_nats(tmp_path)), server_thread) as server:
        yield server
