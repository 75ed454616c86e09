"""An unmodified `tritonclient` against the inference server.

It pins an older protobuf than Lepton, so it lives in an environment of its own, which is made once
below `.make/`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import venv
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[2]
CALLS = Path(__file__).parent / "tritonclient" / "calls.py"
REQUIREMENTS = ("tritonclient[http,grpc]==2.73.0", "numpy")
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def triton_python() -> Path:
    """The Python of the environment that has `tritonclient`."""
    folder = ROOT / ".make" / "tritonclient"
    python = folder / "bin" / "python"
    marker = folder / "installed"
    if not marker.exists():
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS]
        if subprocess.run(install, check=False, timeout=300).returncode != 0:
            pytest.skip("tritonclient cannot be installed here")
        marker.touch()
    return python


def save_model(path: Path, node: onnx.NodeProto, elem_type: int, columns: int) -> Path:
    rows = ["batch", columns]
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", elem_type, rows)],
        [helper.make_tensor_value_info("y", elem_type, rows)],
        [
            helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0]),
            helper.make_tensor("ten", TensorProto.FLOAT, [1], [10.0]),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


def models(folder: Path) -> list[str]:
    """Two versions of `scale` and one of `echo`, as arguments."""
    twice = helper.make_node("Mul", ["x", "two"], ["y"])
    ten_times = helper.make_node("Mul", ["x", "ten"], ["y"])
    same = helper.make_node("Identity", ["x"], ["y"])
    files = {
        "scale:1": save_model(folder / "1.onnx", twice, TensorProto.FLOAT, 4),
        "scale:2": save_model(folder / "2.onnx", ten_times, TensorProto.FLOAT, 4),
        "echo": save_model(folder / "echo.onnx", same, TensorProto.STRING, 2),
    }
    return [f"{name}={path}" for name, path in files.items()]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_every_call_works(triton_python: Path, tmp_path: Path) -> None:
    addresses = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "lepton_worker.inference",
            f"--http={addresses[0]}",
            f"--grpc={addresses[1]}",
            *models(tmp_path),
        ]
    )
    try:
        calls = [str(triton_python), str(CALLS), *addresses]
        assert subprocess.run(calls, check=False, timeout=TIMEOUT_S).returncode == 0
    finally:
        server.terminate()
        assert server.wait(TIMEOUT_S) == 0
