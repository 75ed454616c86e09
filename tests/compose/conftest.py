"""The containers of `deploy/docker-compose.yml`, brought up once and used from outside."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lepton_ai import Cluster
from lepton_ai.errors import LeptonError

FILE = Path(__file__).parents[2] / "deploy/docker-compose.yml"
PROJECT = "lepton-proof"
MEMBERS = 8  # two schedulers, three storage nodes, two workers, a gateway


@dataclass(frozen=True)
class Compose:
    """`docker compose`, or its older spelling, for a project of our own."""

    command: tuple[str, ...]
    environment: dict[str, str]

    def __call__(self, *arguments: str, timeout_s: float = 300.0) -> str:
        command = (*self.command, "-p", PROJECT, "-f", str(FILE), *arguments)
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, timeout=timeout_s, check=True
        )
        return done.stdout.decode()

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        return self("ps", "-q", service).strip()

    def inside(self, service: str, *command: str) -> str:
        """What a command prints inside a service's container."""
        done = ("docker", "exec", self.container(service), *command)
        return subprocess.run(done, stdout=subprocess.PIPE, timeout=60, check=True).stdout.decode()

    def health(self, service: str) -> str:
        """``healthy``, ``starting`` or ``unhealthy``."""
        command = ("docker", "inspect", self.container(service))
        found = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
        return json.loads(found.stdout)[0]["State"]["Health"]["Status"]

    def kill(self, service: str) -> None:
        """kill -9; the container comes back by itself."""
        pid = ("docker", "inspect", "-f", "{{.State.Pid}}", self.container(service))
        number = subprocess.run(pid, stdout=subprocess.PIPE, timeout=60, check=True).stdout
        os.kill(int(number), 9)


def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> float:
    """Wait for a condition; returns the seconds that it took."""
    began = time.monotonic()
    while True:
        try:
            if holds():
                return time.monotonic() - began
        except LeptonError as error:
            print(f"not yet: {error}")
        assert time.monotonic() - began < timeout_s, "it never became true"
        time.sleep(0.2)


def _forget_stale_images() -> None:
    """Each build leaves gigabytes of the one before; what is an hour old is a cache still."""
    ours = ["--filter", "label=org.opencontainers.image.title=lepton", "--filter", "until=1h"]
    subprocess.run(["docker", "image", "prune", "--force", *ours], check=True, timeout=300)


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "LEPTON_PUBLISH": f"127.0.0.1:{port}",
        "LEPTON_ADDRESS": f"localhost:{port}",
        "COMPOSE_INTERACTIVE_NO_CLI": "1",
    }
    ours = Compose(_command(), environment)
    ours("down", "-v", "--remove-orphans")
    try:
        ours("build", timeout_s=1800)
        _forget_stale_images()
        ours("up", "-d")
        yield ours
        print(ours("ps"))
    finally:
        print(ours("logs", "--tail=40", "--no-color"))
        ours("down", "-v", "--remove-orphans")


@pytest.fixture(scope="session")
def home(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the profile lies that a person would fetch."""
    home = tmp_path_factory.mktemp("home")

    def fetched() -> bool:
        # The first docker-compose sometimes loses what so short a container prints.
        told = compose("run", "--rm", "-T", "keys", "cat", "/keys/authority/client.json")
        (home / "client.json").write_text(told)
        return told.startswith("{")

    until(fetched)
    return home


@pytest.fixture(scope="session")
def cluster(home: Path) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEPTON_HOME", str(home))
        with Cluster() as client:
            until(lambda: len(client.nodes()) == MEMBERS, timeout_s=120)
            yield client


def _command() -> tuple[str, ...]:
    if shutil.which("docker") is None:
        pytest.fail("Docker is needed")
    version = ("docker", "compose", "version")
    found = subprocess.run(version, capture_output=True, timeout=60, check=False)
    return version[:2] if found.returncode == 0 else ("docker-compose",)
