"""KServe's unmodified clients against the inference server, in one process with the SDK."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

CALLS = Path(__file__).parent / "kserve" / "calls.py"
TIMEOUT_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def addresses(triton_models: dict[str, Path]) -> Iterator[list[str]]:
    addresses = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "lepton_worker.inference", f"tens={triton_models['tens:2']}"),
            *(f"--http={addresses[0]}", f"--grpc={addresses[1]}"),
        ]
    )
    try:
        with grpc.insecure_channel(addresses[1]) as channel:
            grpc.channel_ready_future(channel).result(TIMEOUT_S)
        yield addresses
    finally:
        server.terminate()
        assert server.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("first", ["kserve", "lepton_ai.cluster.client"])
def test_every_call_works_beside_lepton_ai(
    kserve_python: Path, addresses: list[str], first: str
) -> None:
    calls = [str(kserve_python), str(CALLS), *addresses, first]
    assert subprocess.run(calls, check=False, timeout=TIMEOUT_S).returncode == 0
