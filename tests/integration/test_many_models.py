"""Many models in one inference server whose memory holds only some of them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_ai.oip import Tensor
from lepton_ai.oip.rest import JSON_LENGTH_HEADER, decode_answer, encode_request

MODELS = 100
WIDTH = 512  # A model has a megabyte of weights.
LIMIT_MIB = 24
# What requests take, and what the heap keeps between its blocks.
SLACK_MIB = 16
TIMEOUT_S = 60.0


def save_model(path: Path, number: int) -> None:
    """A model that multiplies each row by `number`, with a megabyte of weights."""
    weights = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32) * number, "w")
    row = ["n", WIDTH]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, row)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, row)],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))


class Server:
    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.url = f"http://127.0.0.1:{port}"

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def factor(self, model: str) -> float:
        """What a model multiplies by."""
        x = np.ones((1, WIDTH), np.float32)
        body, length = encode_request([Tensor("x", "FP32", x)], parameters={})
        headers = {JSON_LENGTH_HEADER: str(length)}
        request = urllib.request.Request(f"{self.url}/v2/models/{model}/infer", body, headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer = decode_answer(response.read(), int(response.headers[JSON_LENGTH_HEADER]))
        return float(answer.outputs[0].array[0, 0])

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=TIMEOUT_S) as response:
            return response.read().decode()

    def until_ready(self) -> None:
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=TIMEOUT_S).close()
            except OSError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            else:
                return


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    for number in range(MODELS):
        save_model(tmp_path / f"m{number}.onnx", number)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "lepton_worker.inference", f"--http={port}"),
            *("--threads=1", f"--model-memory-mib={LIMIT_MIB}"),
            *(str(tmp_path / f"m{number}.onnx") for number in range(MODELS)),
        ]
    )
    try:
        server = Server(child.pid, port)
        server.until_ready()
        yield server
    finally:
        child.terminate()
        assert child.wait(TIMEOUT_S) == 0


def test_models_are_loaded_on_demand_within_the_limit(server: Server, tmp_path: Path) -> None:
    loaded_mib = server.resident_mib()
    for number in range(MODELS):
        # A file that lost its name can be loaded all the same.
        (tmp_path / f"m{number}.onnx").unlink()
    for number in [*range(MODELS), *range(MODELS)]:
        assert server.factor(f"m{number}") == number
    metrics = server.metrics()
    assert 'lepton_model_loads{model="m0",version="1"} 2.0' in metrics
    assert 'lepton_model_memory_bytes{model="m0",version="1"} 0.0' in metrics
    sizes = [
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("lepton_model_memory_bytes{")
    ]
    assert 0 < sum(sizes) <= LIMIT_MIB << 20
    assert server.resident_mib() <= loaded_mib + SLACK_MIB
