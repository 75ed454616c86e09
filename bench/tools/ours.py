"""Lepton's own servers: `lepton serve` alone, and a cluster with one worker behind its gateway."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import cnn
from tools.target import Target, oip_ways

from lepton_ai import AsyncCluster
from lepton_ai.cli import local
from lepton_ai.cluster.profile import Profile
from lepton_ai.proto.v1 import storage_pb2

_START_S = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def alone(model: Path, threads: int, *arguments: str) -> Iterator[tuple[Target, float]]:
    """A server of its own, and the seconds from its start to its first answer."""
    http, grpc = free_port(), free_port()
    started_s = time.monotonic()
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "lepton_worker.inference", f"{cnn.MODEL}={model}"),
            *(f"--http={http}", f"--grpc={grpc}", f"--threads={threads}"),
            *arguments,
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        ways = oip_ways(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
        Target("first", (child.pid,), ways[:1]).wait(_START_S)
        first_answer_s = time.monotonic() - started_s
        target = Target("lepton serve", (child.pid,), ways)
        target.wait(_START_S)
        yield target, first_answer_s
    finally:
        child.terminate()
        child.wait(20)


@contextmanager
def through_the_gateway(model: Path) -> Iterator[Target]:
    """A whole cluster; what is asked is its gateway."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        options = local.LocalOptions(home, 0, workers=1, storage=1)
        with local.attached(options, lambda step: None):
            profile = Profile.read(home)
            asyncio.run(_deployed(profile, model))
            key = {"authorization": f"Bearer {profile.api_key}"}
            target = Target("gateway", (), oip_ways(profile.address, profile.address, key))
            target.wait(_START_S)
            yield target


async def _deployed(profile: Profile, model: Path) -> None:
    async with AsyncCluster(profile.address, profile.api_key) as cluster:
        stored = await cluster._objects.put_file(model)
        form = storage_pb2.Model(name=cnn.MODEL, onnx_object=stored.id)
        await cluster._storage.PublishModel(storage_pb2.PublishModelRequest(model=form))
        await cluster.deploy(cnn.MODEL)
