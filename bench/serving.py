"""How fast the inference server answers, on its own, with the tutorial's CNN.

    python bench/serving.py [--seconds 3] [--json results.json]

Everything runs on this machine, the load generators (`wrk`, `h2load`) too, in less than two
minutes. Machines drift: compare figures of one run only, best with the same engine called
in-process, which is measured beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lepton_ai.oip import Tensor
from lepton_ai.oip.rest import JSON_LENGTH_HEADER, decode_answer, encode_request
from lepton_runtime.oip import grpc_service_pb2 as pb

MODEL = "cnn"
IMAGE = (1, 28, 28)
START_TIMEOUT_S = 20.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
MANY_MODELS = 100
MANY_MEMORY_MIB = 40  # Of the hundred MiB that they would take together.
COLD_REQUESTS_PER_S = 10

WRK_SCRIPT = """
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
if os.getenv("BENCH_JSON_LENGTH") ~= "" then
  wrk.headers["Inference-Header-Content-Length"] = os.getenv("BENCH_JSON_LENGTH")
end
function done(summary, latency, requests)
  io.write(string.format("RESULT %d %d %f %f %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What one load generator saw.

    Attributes:
        name: What was asked.
        connections: How many at the same time.
        requests_per_s: Answers a second.
        p50_ms: Median time of a request.
        p99_ms: 99th percentile.
        cpu_s_per_1000: Processor time of the server for 1,000 requests.
        failed: Requests without a good answer.
    """

    name: str
    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_s_per_1000: float
    failed: int


def make_cnn(path: Path) -> None:
    """The tutorial's CNN with random weights: two convolutions, two dense layers."""
    rng = np.random.default_rng(7)
    shapes = {"w1": (32, 1, 3, 3), "b1": (32,), "w2": (64, 32, 3, 3), "b2": (64,)}
    shapes |= {"w3": (128, 1600), "b3": (128,), "w4": (10, 128), "b4": (10,)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) * 0.1).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["conv1"]),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("MaxPool", ["relu1"], ["pool1"], **pool),
        helper.make_node("Conv", ["pool1", "w2", "b2"], ["conv2"]),
        helper.make_node("Relu", ["conv2"], ["relu2"]),
        helper.make_node("MaxPool", ["relu2"], ["pool2"], **pool),
        helper.make_node("Flatten", ["pool2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["dense1"], transB=1),
        helper.make_node("Relu", ["dense1"], ["relu3"]),
        helper.make_node("Gemm", ["relu3", "w4", "b4"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *IMAGE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))


class Server:
    """A running server and what the bench asks of it."""

    def __init__(self, pid: int, http_port: int, grpc_port: int) -> None:
        self.pid = pid
        self.url = f"http://127.0.0.1:{http_port}/v2/models/{MODEL}/infer"
        self.http_port = http_port
        self.grpc_port = grpc_port

    def cpu_s(self) -> float:
        """Processor time used so far, by the server and not by its Envoy."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def pss_mib(self) -> float:
        """Memory, shared pages counted by share."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    def resident_mib(self) -> float:
        """Memory, shared pages counted in full."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_MIB

    def post(
        self, body: bytes, json_length: int | None, model: str = MODEL
    ) -> tuple[bytes, int | None]:
        headers = {} if json_length is None else {JSON_LENGTH_HEADER: str(json_length)}
        url = self.url.replace(f"/{MODEL}/", f"/{model}/")
        request = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            length = response.headers.get(JSON_LENGTH_HEADER)
            return response.read(), int(length) if length else None


@contextmanager
def running_server(
    models: dict[str, Path], threads: int, *options: str
) -> Iterator[tuple[Server, float]]:
    """A server with models, and the seconds from its start to the first answer of `MODEL`."""
    http_port, grpc_port = free_port(), free_port()
    started_s = time.monotonic()
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "lepton_worker.inference"),
            *(f"--http={http_port}", f"--grpc={grpc_port}", f"--threads={threads}", *options),
            *(f"{name}={path}" for name, path in models.items()),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Server(child.pid, http_port, grpc_port)
        first_answer_s = wait_for_answer(server) - started_s
        yield server, first_answer_s
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


def wait_for_answer(server: Server) -> float:
    body, json_length = binary_request(1)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            server.post(body, json_length)
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
        else:
            return time.monotonic()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(1).random((rows, *IMAGE), np.float32)


def binary_request(rows: int) -> tuple[bytes, int]:
    return encode_request([Tensor("image", "FP32", images(rows))], parameters={})


def json_request() -> tuple[bytes, None]:
    data = [round(float(value), 6) for value in images(1).ravel()]
    spec = {"name": "image", "datatype": "FP32", "shape": [1, *IMAGE], "data": data}
    return json.dumps({"inputs": [spec]}).encode(), None


def grpc_request() -> bytes:
    request = pb.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="image", datatype="FP32", shape=[1, *IMAGE])
    request.raw_input_contents.append(images(1).tobytes())
    message = request.SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


def run_wrk(
    server: Server, name: str, request: tuple[bytes, int | None], connections: int, seconds: int
) -> Load:
    """Ask in a closed loop over REST."""
    body, json_length = request
    with tempfile.TemporaryDirectory() as folder:
        script, body_file = Path(folder) / "post.lua", Path(folder) / "body"
        script.write_text(WRK_SCRIPT)
        body_file.write_bytes(body)
        before_s = server.cpu_s()
        output = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), server.url],
            env=os.environ
            | {"BENCH_BODY": str(body_file), "BENCH_JSON_LENGTH": str(json_length or "")},
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 30,
        ).stdout
        used_s = server.cpu_s() - before_s
    found = re.search(r"^RESULT (\S+) (\S+) (\S+) (\S+) (\S+)$", output, re.MULTILINE)
    assert found, output
    count, duration_us, p50_us, p99_us, failed = (float(text) for text in found.groups())
    return Load(
        name,
        connections,
        count / duration_us * 1e6,
        p50_us / 1000,
        p99_us / 1000,
        used_s / count * 1000,
        int(failed),
    )


def run_h2load(server: Server, connections: int, seconds: int) -> Load:
    """Ask in a closed loop over gRPC, through the server's own Envoy."""
    with tempfile.TemporaryDirectory() as folder:
        body_file, log = Path(folder) / "body", Path(folder) / "log"
        body_file.write_bytes(grpc_request())
        before_s = server.cpu_s()
        output = subprocess.run(
            [
                *("h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds}", "--warm-up-time=1"),
                *("-d", str(body_file), f"--log-file={log}"),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                f"http://127.0.0.1:{server.grpc_port}/inference.GRPCInferenceService/ModelInfer",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 30,
        ).stdout
        used_s = server.cpu_s() - before_s
        entries = [line.split("\t") for line in log.read_text().splitlines()]
    durations_ms = np.array([int(duration_us) for _, _, duration_us in entries]) / 1000
    rate = re.search(r"finished in .*, (\S+) req/s", output)
    assert rate, output
    failed = sum(status != "200" for _, status, _ in entries)
    return Load(
        "gRPC through its Envoy",
        connections,
        float(rate[1]),
        float(np.percentile(durations_ms, 50)),
        float(np.percentile(durations_ms, 99)),
        used_s / (len(entries) * (seconds + 1) / seconds) * 1000,
        failed,
    )


def in_process_rows_per_s(model: Path, rows: int, threads: int, seconds: int) -> float:
    """What the engine alone computes with the same threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options)
    batch = {"image": images(rows)}
    done, started_s = 0, time.monotonic()
    while (elapsed_s := time.monotonic() - started_s) < seconds:
        session.run(None, batch)
        done += rows
    return done / elapsed_s


def check_answers(server: Server, model: Path) -> None:
    """Fail unless the server says what the engine says."""
    import onnxruntime

    expected = onnxruntime.InferenceSession(str(model)).run(None, {"image": images(3)})[0]
    answer = decode_answer(*server.post(*binary_request(3)))
    np.testing.assert_allclose(answer.outputs[0].array, expected, rtol=1e-4, atol=1e-5)


def measure(seconds: int, threads: int) -> dict[str, object]:
    """All figures of one run."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "cnn.onnx"
        make_cnn(model)
        engine_rows_per_s = in_process_rows_per_s(model, 64, threads, seconds)
        with running_server({MODEL: model}, threads) as (server, first_answer_s):
            at_rest_mib = server.pss_mib()
            check_answers(server, model)
            binary, json_body, batch = binary_request(1), json_request(), binary_request(64)
            loads = [
                run_wrk(server, "REST, binary", binary, connections, seconds)
                for connections in (64, 1, 256)
            ]
            loads += [
                run_wrk(server, "REST, JSON", json_body, connections, seconds)
                for connections in (64, 1)
            ]
            loads += [run_h2load(server, connections, seconds) for connections in (64, 1)]
            batches = run_wrk(server, "REST, binary, 64 images", batch, 4, seconds)
            check_answers(server, model)
            loaded_mib = server.pss_mib()
    return {
        "first_answer_s": first_answer_s,
        "pss_at_rest_mib": at_rest_mib,
        "pss_after_load_mib": loaded_mib,
        "batches_of_the_engines_rate": batches.requests_per_s * 64 / engine_rows_per_s,
        "loads": [asdict(load) for load in [*loads, batches]],
    }


def many_models(seconds: int) -> dict[str, float]:
    """A hot model while 99 others, which do not fit beside it, are asked for in turn."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "cnn.onnx"
        make_cnn(model)
        cold = [f"cold{number}" for number in range(1, MANY_MODELS)]
        models = dict.fromkeys((*cold, MODEL), model)
        limit = f"--model-memory-mib={MANY_MEMORY_MIB}"
        with running_server({MODEL: model}, 1) as (server, _):
            run_wrk(server, "to fill buffers", binary_request(1), 8, 1)
            empty_mib = server.resident_mib()
        with running_server(models, 1, limit) as (server, _):
            alone = run_wrk(server, "hot model alone", binary_request(1), 8, seconds)
            with asking_in_turn(server, cold) as answered:
                beside = run_wrk(server, "hot model", binary_request(1), 8, seconds)
            many_mib = server.resident_mib()
    if alone.failed or beside.failed or not answered:
        raise SystemExit("a request failed")
    return {
        "many_models_loads_per_s": len(answered) / seconds,
        "many_models_hot_p99_alone_ms": alone.p99_ms,
        "many_models_hot_p99_beside_loads_ms": beside.p99_ms,
        "many_models_memory_of_its_limit": (many_mib - empty_mib) / MANY_MEMORY_MIB,
    }


@contextmanager
def asking_in_turn(server: Server, models: list[str]) -> Iterator[list[str]]:
    """Asks for one model after another in the background; gives those that answered."""
    answered: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        request = binary_request(1)
        for model in itertools.cycle(models):
            if stop.wait(1 / COLD_REQUESTS_PER_S):
                return
            server.post(*request, model)
            answered.append(model)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answered
    finally:
        stop.set()
        thread.join()


def report(results: dict[str, object]) -> None:
    for name, value in results.items():
        if isinstance(value, float):
            print(f"{name:32}{value:10.2f}")
    columns = "{:26}{:>6}{:>12}{:>10}{:>10}{:>12}{:>8}"
    print(columns.format("path", "conn", "requests/s", "p50 ms", "p99 ms", "CPU s/1000", "failed"))
    loads = results["loads"]
    assert isinstance(loads, list)
    for load in (Load(**fields) for fields in loads):
        print(
            columns.format(
                load.name,
                load.connections,
                f"{load.requests_per_s:,.0f}",
                f"{load.p50_ms:.2f}",
                f"{load.p99_ms:.2f}",
                f"{load.cpu_s_per_1000:.3f}",
                load.failed,
            )
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of each measurement")
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    missing = [tool for tool in ("wrk", "h2load") if shutil.which(tool) is None]
    if missing:
        print(f"needs {', '.join(missing)}: apt-get install wrk nghttp2-client", file=sys.stderr)
        return 2
    results = measure(options.seconds, options.threads) | many_models(options.seconds)
    report(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
