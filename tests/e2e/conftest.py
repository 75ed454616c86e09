"""A whole cluster of real processes on free ports, shared by the tests of a module."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lepton_ai import CNN, Cluster
from lepton_ai.cli import local
from lepton_ai.cli.commands import app
from lepton_ai.cluster.profile import Profile
from lepton_ai.learn.model import Model
from lepton_ai.preprocessing import MinMaxScaler
from lepton_runtime.etcd import EtcdState


def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> float:
    """Wait for a condition; returns the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout_s, "it never became true"
        time.sleep(0.02)
    return time.monotonic() - began


def processes_of(home: Path) -> dict[int, str]:
    """Command lines, by process id, of all that runs for the cluster in `home`."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if command and (str(home) in command or f"={home}/".encode() in environment):
            found[int(folder.name)] = command
    return found


@dataclass(frozen=True)
class RunningCluster:
    home: Path
    profile: Profile
    client: Cluster

    def kill_node(self, node_id: str, module: str) -> None:
        """kill -9 the process of one node."""
        wanted = f"LEPTON_NODE_ID={node_id}".encode()
        for pid, command in processes_of(self.home).items():
            ours = wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if ours and command.strip().endswith(f"-m {module}"):
                os.kill(pid, signal.SIGKILL)
                return
        raise AssertionError(f"{node_id} does not run")

    def records(self, prefix: str) -> list[bytes]:
        """Values in the cluster's etcd."""

        async def read() -> list[bytes]:
            state = EtcdState([self.etcd_address()])
            try:
                return [record.value for record in (await state.list(prefix)).records]
            finally:
                await state.close()

        return asyncio.run(read())

    def etcd_address(self) -> str:
        """``host:port`` of etcd, as services are told."""
        for pid, command in processes_of(self.home).items():
            if command.strip().endswith("-m lepton_scheduler"):
                environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
                told = dict(line.split("=", 1) for line in environment if "=" in line)
                return json.loads(told["LEPTON_ETCD_ENDPOINTS"])[0]
        raise AssertionError("no scheduler runs")

    def kill_server(self, name: str) -> None:
        """kill -9 etcd or nats-server."""
        servers = [
            pid
            for pid, command in processes_of(self.home).items()
            if Path(command.split()[0]).name == name
        ]
        assert servers
        for pid in servers:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def running_cluster(home: Path) -> Iterator[RunningCluster]:
    """A cluster in the folder `home`; nothing of it is left afterwards."""
    with local.attached(local.LocalOptions(home, 0, workers=2, storage=2), lambda step: None):
        profile = Profile.read(home)
        with Cluster(profile.address, profile.api_key) as client:
            yield RunningCluster(home, profile, client)
    assert processes_of(home) == {}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def model() -> Model:
    made = CNN(
        input_shape=(8, 8, 1),
        layers=[
            ("conv", {"filters": 16, "kernel_size": (3, 3), "activation": "relu"}),
            ("flatten"),
            ("dense", {"units": 64, "activation": "relu"}),
            ("dense", {"units": 10, "activation": "softmax"}),
        ],
        preprocessing=[MinMaxScaler()],
    )
    made.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return made


@pytest.fixture
def command(cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs `lepton …` and answers what it printed."""
    monkeypatch.setenv("LEPTON_ADDRESS", cluster.profile.address)
    monkeypatch.setenv("LEPTON_API_KEY", cluster.profile.api_key)

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    return run
