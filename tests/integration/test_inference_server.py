"""The inference server as real processes: its REST, gRPC and control sides."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2
from onnx import TensorProto, helper

from lepton_ai.oip import Tensor
from lepton_ai.oip.rest import JSON_LENGTH_HEADER, decode_answer, encode_request
from lepton_runtime.oip import grpc_service_pb2 as pb

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0


def scaled_model(path: Path, factor: float) -> Path:
    """A model that multiplies rows of four numbers by `factor`."""
    rows = ["batch", 4]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, rows)],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


def model_of_integers(path: Path) -> Path:
    """A model that gives back rows of four integers."""
    rows = ["batch", 4]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "integers",
        [helper.make_tensor_value_info("x", TensorProto.INT64, rows)],
        [helper.make_tensor_value_info("y", TensorProto.INT64, rows)],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


def steps(*paths: Path) -> list[dict[str, str]]:
    """The models of a load command."""
    return [{"path": str(path)} for path in paths]


@contextmanager
def process(*command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is gone afterwards, whatever happens."""
    child = subprocess.Popen(command, **options)
    try:
        yield child
    finally:
        child.kill()
        child.wait(STOP_TIMEOUT_S)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                # The child may have died with a command unread.
                with suppress(BrokenPipeError):
                    stream.close()


class Server:
    """An inference server under the control of this test, as its agent."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self.host, _, port = self.event()["http_address"].rpartition(":")
        self.port = int(port)

    def event(self) -> dict[str, Any]:
        """The next event, within a time."""
        assert self.child.stdout is not None
        assert select.select([self.child.stdout], [], [], START_TIMEOUT_S)[0], "no event came"
        return json.loads(self.child.stdout.readline())

    def send(self, **command: Any) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(command).encode() + b"\n")
        self.child.stdin.flush()

    def command(self, **command: Any) -> dict[str, Any]:
        self.send(**command)
        return self.event()

    def request(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            lowered = {name.lower(): value for name, value in response.getheaders()}
            return response.status, lowered, response.read()
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        while self.request("GET", "/v2/health/ready")[0] != 200:
            time.sleep(0.01)

    def json(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        body = b"" if document is None else json.dumps(document).encode()
        status, _, answer = self.request(method, path, body)
        return status, json.loads(answer)


@contextmanager
def controlled_server(*arguments: str) -> Iterator[Server]:
    with process(
        *(sys.executable, "-m", "lepton_worker.inference", "--control", "--http", "127.0.0.1:0"),
        *("--threads", "1", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # `select` sees what no buffer holds back.
    ) as child:
        yield Server(child)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with versions 1 (times two) and 2 (times ten) of the model `scale`."""
    with controlled_server() as server:
        for version, factor in (("1", 2.0), ("2", 10.0)):
            path = scaled_model(tmp_path / f"{version}.onnx", factor)
            server.send(op="load", id=version, name="scale", version=version, steps=steps(path))
        loaded = {server.event()["id"] for _ in range(2)}
        assert loaded == {"1", "2"}
        yield server


def rows(*values: float) -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": "x",
                "shape": [len(values), 4],
                "datatype": "FP32",
                "data": [[value] * 4 for value in values],
            }
        ]
    }


def test_json_answers_come_from_the_latest_version_unless_one_is_named(server: Server) -> None:
    status, answer = server.json("POST", "/v2/models/scale/infer", rows(1.0, 3.0) | {"id": "r-7"})
    assert status == 200
    assert answer == {
        "model_name": "scale",
        "model_version": "2",
        "id": "r-7",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 4], "data": [10.0] * 4 + [30.0] * 4}
        ],
    }
    _, answer = server.json("POST", "/v2/models/scale/versions/1/infer", rows(1.0))
    assert answer["model_version"] == "1"
    assert answer["outputs"][0]["data"] == [2.0] * 4


def test_binary_tensors_go_both_ways_also_compressed(server: Server) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    body, json_length = encode_request([Tensor("x", "FP32", x)], parameters={})
    for packed, encoding in ((body, "identity"), (gzip.compress(body), "gzip")):
        status, headers, answer = server.request(
            "POST",
            "/v2/models/scale/infer",
            packed,
            inference_header_content_length=str(json_length),
            content_encoding=encoding,
        )
        assert status == 200
        outputs = decode_answer(answer, int(headers[JSON_LENGTH_HEADER])).outputs
        np.testing.assert_array_equal(outputs[0].array, x * 10)


def test_a_bare_tensor_is_a_request_too(server: Server) -> None:
    x = np.ones((3, 4), np.float32)
    status, headers, answer = server.request(
        "POST", "/v2/models/scale/infer", x.tobytes(), inference_header_content_length="0"
    )
    assert status == 200
    outputs = decode_answer(answer, int(headers[JSON_LENGTH_HEADER])).outputs
    np.testing.assert_array_equal(outputs[0].array, x * 10)


@pytest.mark.parametrize(
    ("path", "document", "status", "words"),
    [
        ("/v2/models/scael/infer", rows(1.0), 404, ["scael", "did you mean 'scale'"]),
        ("/v2/models/scale/versions/9/infer", rows(1.0), 404, ["'9'", "1, 2"]),
        ("/v2/models/scale/infer", {"inputs": []}, 400, ["'x' is missing"]),
        ("/v2/models/scale/infer", rows(), 400, ["is empty"]),
        ("/v2/models/scale/infer", rows(*[1.0] * 65), 400, ["65 rows", "1 to 64"]),
    ],
)
def test_bad_input_is_answered_with_what_is_wrong_and_allowed(
    server: Server, path: str, document: Any, status: int, words: list[str]
) -> None:
    answered, answer = server.json("POST", path, document)
    assert answered == status
    assert list(answer) == ["error"]
    assert all(word in answer["error"] for word in words)


def test_metadata_config_statistics_and_metrics(server: Server) -> None:
    assert server.json("GET", "/v2/health/live") == (200, {"live": True})
    assert server.json("GET", "/v2/health/ready") == (200, {"ready": True})
    _, metadata = server.json("GET", "/v2/models/scale")
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    _, config = server.json("GET", "/v2/models/scale/config")
    assert config["max_batch_size"] == 64
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    server.json("POST", "/v2/models/scale/infer", rows(1.0, 2.0))
    _, statistics = server.json("GET", "/v2/models/scale/versions/2/stats")
    assert statistics["model_stats"][0]["inference_count"] == 2
    assert statistics["model_stats"][0]["inference_stats"]["success"]["count"] == 1
    _, index = server.json("POST", "/v2/repository/index")
    assert {(entry["version"], entry["state"]) for entry in index} == {
        ("1", "READY"),
        ("2", "READY"),
    }
    _, _, metrics = server.request("GET", "/metrics")
    assert b'nv_inference_count{model="scale",version="2"} 2.0' in metrics


def test_clients_may_not_load_what_the_agent_decides(server: Server) -> None:
    status, answer = server.json("POST", "/v2/repository/models/scale/unload")
    assert status == 501
    assert "deployments" in answer["error"]


def test_an_unloaded_version_is_gone_and_the_one_before_answers(server: Server) -> None:
    done = server.command(op="unload", id=3, name="scale", version="2")
    assert done == {"event": "unloaded", "id": 3}
    _, answer = server.json("POST", "/v2/models/scale/infer", rows(1.0))
    assert answer["model_version"] == "1"
    status, _ = server.json("POST", "/v2/models/scale/versions/2/infer", rows(1.0))
    assert status == 503


def test_a_replaced_version_answers_all_the_time(server: Server, tmp_path: Path) -> None:
    answers: list[float] = []
    replaced = scaled_model(tmp_path / "other.onnx", 5.0)
    server.send(op="load", id=9, name="scale", version="2", steps=steps(replaced))
    while not select.select([server.child.stdout], [], [], 0)[0]:
        _, answer = server.json("POST", "/v2/models/scale/infer", rows(1.0))
        answers.append(answer["outputs"][0]["data"][0])
    assert server.event() == {"event": "loaded", "id": 9}
    _, answer = server.json("POST", "/v2/models/scale/infer", rows(1.0))
    assert answer["outputs"][0]["data"][0] == 5.0
    assert set(answers) <= {10.0, 5.0}
    assert answers == sorted(answers, reverse=True)


def test_a_broken_model_is_refused_and_the_server_lives(server: Server, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")
    failed = server.command(op="load", id=4, name="broken", version="1", steps=steps(broken))
    assert failed["event"] == "failed"
    assert failed["code"] == "INVALID_ARGUMENT"
    assert str(tmp_path) not in failed["error"]
    assert "unknown op" not in failed["error"]
    assert server.json("GET", "/v2/health/ready") == (200, {"ready": True})


def test_an_ensemble_runs_its_models_in_a_row(server: Server, tmp_path: Path) -> None:
    paths = [scaled_model(tmp_path / f"part{number}.onnx", 3.0) for number in range(2)]
    loaded = server.command(op="load", id=5, name="nine", version="1", steps=steps(*paths))
    assert loaded == {"event": "loaded", "id": 5}
    _, answer = server.json("POST", "/v2/models/nine/infer", rows(1.0, 2.0))
    assert answer["outputs"][0]["data"] == [9.0] * 4 + [18.0] * 4
    misfit = model_of_integers(tmp_path / "misfit.onnx")
    failed = server.command(op="load", id=6, name="bad", version="1", steps=steps(paths[0], misfit))
    assert (failed["event"], failed["code"]) == ("failed", "INVALID_ARGUMENT")
    assert "takes 'x' as INT64 [-1, 4]: 'y' is FP32 [-1, 4]" in failed["error"]


def test_a_cached_answer_is_computed_once(server: Server, tmp_path: Path) -> None:
    path = scaled_model(tmp_path / "cached.onnx", 2.0)
    options = {"cache_bytes": 1_000_000}
    server.command(op="load", id=7, name="c", version="1", steps=steps(path), options=options)
    answers = [server.json("POST", "/v2/models/c/infer", rows(value)) for value in (1.0, 1.0, 2.0)]
    assert [answer["outputs"][0]["data"][0] for _, answer in answers] == [2.0, 2.0, 4.0]
    _, statistics = server.json("GET", "/v2/models/c/stats")
    counts = statistics["model_stats"][0]["inference_stats"]
    assert [counts[name]["count"] for name in ("success", "cache_hit", "cache_miss")] == [3, 1, 2]
    assert statistics["model_stats"][0]["execution_count"] == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not JSON"),
        (b'{"op":"laod","id":1}', "allowed are load, unload and drain"),
        (
            b'{"op":"load","id":1,"name":"../x","version":"1","steps":[{"path":"/x"}]}',
            "'../x' is not allowed",
        ),
        (
            b'{"op":"load","id":1,"name":"x","version":"one","steps":[{"path":"/x"}]}',
            "'one' is not allowed",
        ),
    ],
)
def test_commands_without_sense_fail(line: bytes, words: str) -> None:
    with controlled_server() as server:
        assert server.child.stdin is not None
        server.child.stdin.write(line + b"\n")
        server.child.stdin.flush()
        failed = server.event()
    assert failed["event"] == "failed"
    assert words in failed["error"]


@pytest.mark.parametrize("ending", ["drain", "end of input", "SIGTERM"])
def test_it_ends_when_told_or_left_alone(server: Server, ending: str) -> None:
    assert server.child.stdin is not None
    if ending == "drain":
        assert server.command(op="drain")["event"] == "draining"
    elif ending == "SIGTERM":
        server.child.send_signal(signal.SIGTERM)
    else:
        server.child.stdin.close()
    assert server.child.wait(STOP_TIMEOUT_S) == 0


def test_draining_answers_what_was_sent(server: Server) -> None:
    """Requests under way when the end comes are answered; later ones find a closed port."""
    answered: list[int] = []
    refused: list[ConnectionError] = []

    def ask_until_refused() -> None:
        while not refused:
            try:
                answered.append(server.json("POST", "/v2/models/scale/infer", rows(1.0))[0])
            except ConnectionError as error:
                # The port is closed, or the request was sent into a connection that was closed
                # before it arrived: not a request the server took.
                refused.append(error)

    clients = [Thread(target=ask_until_refused) for _ in range(4)]
    for client in clients:
        client.start()
    while len(answered) < 50:
        time.sleep(0.001)
    server.child.send_signal(signal.SIGTERM)
    for client in clients:
        client.join(STOP_TIMEOUT_S)
    assert server.child.wait(STOP_TIMEOUT_S) == 0
    assert set(answered) <= {200, 503}


def test_an_open_port_needs_tls(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "lepton_worker.inference", "--http", "0.0.0.0:0"],
        capture_output=True,
        check=False,
        timeout=START_TIMEOUT_S,
    )
    assert finished.returncode == 1
    assert b"--insecure-bind" in finished.stderr
    assert b"Traceback" not in finished.stderr


def make_certificates(folder: Path) -> dict[str, str]:
    """An authority, a certificate of 127.0.0.1 that it signed, and one of somebody else."""
    names = {"authority": "authority", "node": "authority", "stranger": "stranger"}
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in names}
    now = datetime.now(UTC)
    files: dict[str, str] = {}
    for name, issuer in names.items():
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(keys[name].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
            )
        )
        certificate = builder.sign(keys[issuer], hashes.SHA256())
        encoding = serialization.Encoding.PEM
        key = keys[name].private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for suffix, content in (("crt", certificate.public_bytes(encoding)), ("key", key)):
            path = folder / f"{name}.{suffix}"
            path.write_bytes(content)
            files[f"{name}.{suffix}"] = str(path)
    return files


def test_with_tls_only_clients_of_the_same_authority_are_served(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    with controlled_server(
        f"--tls-certificate={files['node.crt']}",
        f"--tls-key={files['node.key']}",
        f"--tls-client-authority={files['authority.crt']}",
    ) as server:

        def ask(client: str | None) -> int:
            context = ssl.create_default_context(cafile=files["authority.crt"])
            if client is not None:
                context.load_cert_chain(files[f"{client}.crt"], files[f"{client}.key"])
            connection = http.client.HTTPSConnection(
                server.host, server.port, timeout=10, context=context
            )
            with closing(connection):
                connection.request("GET", "/v2/health/live")
                return connection.getresponse().status

        assert ask("node") == 200
        for stranger in (None, "stranger"):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(stranger)
        assert ask("node") == 200


def test_who_ends_the_command_ends_the_server(tmp_path: Path) -> None:
    port, model = free_port(), scaled_model(tmp_path / "scale.onnx", 2.0)
    command = (sys.executable, "-c", "from lepton_ai.cli import main; main()", "serve")
    with process(*command, str(model), f"--http={port}") as child:
        started = time.monotonic()
        while not is_open(port):
            assert time.monotonic() < started + START_TIMEOUT_S
            time.sleep(0.05)
        child.terminate()
        assert child.wait(STOP_TIMEOUT_S) == 0
        assert not is_open(port)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return False
    return True


# gRPC clients.


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


Call = Callable[..., Any]
# A model that refuses everything.
FULL = ("--set", "full.queue_capacity=0")


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    """Calls a method of a server: `call(method, request, response type)`."""
    port = free_port()
    models = [scaled_model(tmp_path / "1.onnx", 2.0), scaled_model(tmp_path / "2.onnx", 10.0)]
    arguments = [f"scale:{number}={path}" for number, path in enumerate(models, 1)]
    with (
        controlled_server(f"--grpc={port}", *arguments, f"full={models[0]}", *FULL) as server,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        grpc.channel_ready_future(channel).result(START_TIMEOUT_S)

        def call(method: str, request: Any, response: Any, **options: Any) -> Any:
            return channel.unary_unary(
                f"/inference.GRPCInferenceService/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString,
            )(request, timeout=10, **options)

        server.wait_until_ready()
        yield call


def infer_request(x: np.ndarray[Any, Any], model: str = "scale") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, id="7")
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request


def test_grpc_clients(call: Call) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    answer = call("ModelInfer", infer_request(x), pb.ModelInferResponse)
    assert (answer.model_name, answer.model_version, answer.id) == ("scale", "2", "7")
    assert list(answer.outputs[0].shape) == [2, 4]
    computed = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(2, 4)
    np.testing.assert_array_equal(computed, x * 10)

    typed = pb.ModelInferRequest(model_name="scale", model_version="1")
    tensor = typed.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1.0, 2.0, 3.0, 4.0])
    answer = call("ModelInfer", typed, pb.ModelInferResponse)
    computed = np.frombuffer(answer.raw_output_contents[0], np.float32)
    np.testing.assert_array_equal(computed, [2.0, 4.0, 6.0, 8.0])

    assert call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
    assert call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready
    assert call("ModelReady", pb.ModelReadyRequest(name="scale"), pb.ModelReadyResponse).ready
    metadata = call("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
    assert metadata.name == "lepton"
    model = call("ModelMetadata", pb.ModelMetadataRequest(name="scale"), pb.ModelMetadataResponse)
    assert list(model.inputs[0].shape) == [-1, 4]
    config = call("ModelConfig", pb.ModelConfigRequest(name="scale"), pb.ModelConfigResponse)
    assert config.config.input[0].data_type == pb.TYPE_FP32
    statistics = call(
        "ModelStatistics", pb.ModelStatisticsRequest(name="scale"), pb.ModelStatisticsResponse
    )
    assert statistics.model_stats[0].inference_count == 2
    index = call("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)
    assert {entry.version for entry in index.models if entry.name == "scale"} == {"1", "2"}


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_grpc_clients_are_told_when_to_come_back(call: Call, compression: Any) -> None:
    request = infer_request(np.ones((1, 4), np.float32), "full")
    with pytest.raises(grpc.RpcError) as caught:
        call("ModelInfer", request, pb.ModelInferResponse, compression=compression)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.details[0].Is(error_details_pb2.RetryInfo.DESCRIPTOR)


def test_grpc_clients_see_the_right_status(call: Call) -> None:
    x = np.ones((1, 4), np.float32)
    wrong = {
        grpc.StatusCode.NOT_FOUND: infer_request(x, "scael"),
        grpc.StatusCode.INVALID_ARGUMENT: infer_request(np.ones((1, 5), np.float32)),
    }
    for code, request in wrong.items():
        with pytest.raises(grpc.RpcError) as caught:
            call("ModelInfer", request, pb.ModelInferResponse)
        assert caught.value.code() == code
        assert "scale" in caught.value.details() or "[-1, 4]" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        call("TraceSetting", pb.ServerLiveRequest(), pb.ServerLiveResponse)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_grpc_clients_stream_and_ask_what_there_is(tmp_path: Path) -> None:
    port, model = free_port(), scaled_model(tmp_path / "model.onnx", 2.0)
    with (
        controlled_server(f"--grpc={port}", f"scale={model}") as server,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        server.wait_until_ready()
        wanted = [infer_request(np.full((1, 4), n, np.float32)) for n in range(100)]
        wanted[7].inputs[0].shape[1] = 5
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            answers = list(stream(iter(wanted), timeout=30, compression=compression))
            assert [bool(answer.error_message) for answer in answers] == [
                n == 7 for n in range(100)
            ]
            for n, answer in enumerate(answers):
                raw = answer.infer_response.raw_output_contents
                assert n == 7 or np.frombuffer(raw[0], np.float32)[0] == 2 * n
        for version in ("v1", "v1alpha"):
            ask = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            questions = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference"),
                reflection_pb2.ServerReflectionRequest(
                    file_containing_symbol="inference.GRPCInferenceService"
                ),
            ]
            listed, unknown, described = ask(iter(questions), timeout=10)
            names = {service.name for service in listed.list_services_response.service}
            assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names
            assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
            assert described.file_descriptor_response.file_descriptor_proto


def test_one_grpc_connection_carries_many_calls_and_large_ones(tmp_path: Path) -> None:
    port, model = free_port(), scaled_model(tmp_path / "model.onnx", 2.0)

    async def scenario() -> None:
        options = [("grpc.max_receive_message_length", 64 << 20)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
                response_deserializer=pb.ModelInferResponse.FromString,
            )

            async def ask(value: int, rows: int) -> None:
                x = np.full((rows, 4), value, np.float32)
                answer = await infer(infer_request(x), timeout=30)
                computed = np.frombuffer(answer.raw_output_contents[0], np.float32)
                np.testing.assert_array_equal(computed.reshape(rows, 4), 2 * x)

            async with asyncio.TaskGroup() as tasks:
                for number in range(500):
                    tasks.create_task(ask(number, 60_000 if number % 100 == 0 else 1))

    with controlled_server(f"--grpc={port}", f"scale={model}", "--max-batch-size=65536") as server:
        server.wait_until_ready()
        asyncio.run(scenario())
