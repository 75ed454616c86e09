"""KServe's unmodified clients against the inference server.

`kserve` brings three hundred megabytes with it, so no environment is made for it here:
LEPTON_KSERVE_PYTHON names a Python that has it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

CALLS = Path(__file__).parent / "kserve" / "calls.py"
ROOT = Path(__file__).resolve().parents[2]
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


@pytest.mark.skipif("LEPTON_KSERVE_PYTHON" not in os.environ, reason="needs LEPTON_KSERVE_PYTHON")
@pytest.mark.parametrize("first", ["kserve", "lepton_ai"])
def test_every_call_works_beside_lepton_ai(addresses: list[str], first: str) -> None:
    calls = [os.environ["LEPTON_KSERVE_PYTHON"], str(CALLS), *addresses, first]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(calls, env=environment, check=False, timeout=TIMEOUT_S)
    assert finished.returncode == 0
