"""An unmodified `tritonclient` against the inference server."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = Path(__file__).parent / "tritonclient" / "calls.py"
TIMEOUT_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_every_call_works(triton_python: Path, triton_models: dict[str, Path]) -> None:
    addresses = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "lepton_worker.inference",
            f"--http={addresses[0]}",
            f"--grpc={addresses[1]}",
            *(f"{name}={path}" for name, path in triton_models.items()),
        ]
    )
    try:
        calls = [str(triton_python), str(CALLS), *addresses]
        assert subprocess.run(calls, check=False, timeout=TIMEOUT_S).returncode == 0
    finally:
        server.terminate()
        assert server.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize(
    "modules",
    ["tritonclient.grpc, lepton_ai.cluster.client", "lepton_ai.cluster.client, tritonclient.grpc"],
)
def test_it_shares_a_process_with_the_sdk(triton_python: Path, modules: str) -> None:
    imports = [str(triton_python), "-c", f"import {modules}"]
    assert subprocess.run(imports, check=False, timeout=TIMEOUT_S).returncode == 0
