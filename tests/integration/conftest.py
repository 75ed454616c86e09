"""What integration tests share: a gateway, and an unmodified `tritonclient`.

The latter pins an older protobuf than Lepton, so it lives in an environment of its own, which is
made once below `.make/`.
"""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import onnx
import pytest
from gateway_cluster import Cluster, Replica, eventually, save_doubling
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ("tritonclient[http,grpc]==2.73.0", "numpy")


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def triton_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions of `tens`, times two and times ten, and one of `echo`, by name and version."""
    folder = tmp_path_factory.mktemp("triton")
    twice = helper.make_node("Mul", ["x", "two"], ["y"])
    ten_times = helper.make_node("Mul", ["x", "ten"], ["y"])
    same = helper.make_node("Identity", ["x"], ["y"])
    return {
        "tens:1": save_model(folder / "1.onnx", twice, TensorProto.FLOAT, 4),
        "tens:2": save_model(folder / "2.onnx", ten_times, TensorProto.FLOAT, 4),
        "echo:1": save_model(folder / "echo.onnx", same, TensorProto.STRING, 2),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that doubles rows of any length."""
    return save_doubling(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Cluster]:
    """A gateway with the deployment `scale` on two replicas."""
    with ExitStack() as stack:
        replicas = [Replica(stack, model, "scale") for _ in range(2)]
        cluster = stack.enter_context(Cluster(tmp_path_factory.mktemp("gateway")))
        cluster.deploy("scale", *(replica.address for replica in replicas))
        eventually(lambda: cluster.infer("scale", [1.0]).status == 200)
        yield cluster
