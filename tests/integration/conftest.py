"""What integration tests share: a gateway, and clients of others, unmodified.

Each of the latter lives in an environment of its own beside Lepton's SDK, which is made once below
`.make/`, from what the installer picks and not from Lepton's pinned versions.
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
INSTALL_S = 300


def client_python(name: str, *requirements: str) -> Path:
    """The Python of the environment with that client."""
    folder = ROOT / ".make" / name
    python, marker = folder / "bin" / "python", folder / "installed"
    wanted = ["--editable", str(ROOT), *requirements]
    if not marker.exists() or marker.read_text() != repr(wanted):
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", *wanted]
        if subprocess.run(install, check=False, timeout=INSTALL_S).returncode != 0:
            pytest.skip(f"{name} cannot be installed here")
        marker.write_text(repr(wanted))
    return python


@pytest.fixture(scope="session")
def triton_python() -> Path:
    return client_python("tritonclient", "tritonclient[http,grpc]==2.73.0")


@pytest.fixture(scope="session")
def kserve_python() -> Path:
    return client_python("kserve", "kserve==0.21.0")


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
