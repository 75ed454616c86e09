"""The gateway with a real Envoy, real inference servers and a stand-in for the schedulers."""

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
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc
import jwt
import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from onnx import TensorProto, helper

from lepton_ai.proto.v1 import (
    deployment_pb2,
    job_pb2,
    node_pb2,
    scheduler_pb2,
    scheduler_pb2_grpc,
    serving_pb2,
    task_pb2,
)
from lepton_gateway.envoy.clusters import Tls
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.gateway import Engines, Place, running_gateway
from lepton_gateway.queued.service import QueueingLimits, opened_queue
from lepton_runtime import keys
from lepton_runtime.auth import TokenVerifier
from lepton_runtime.certificates import Authority
from lepton_runtime.clock import SystemClock
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_runtime.memory_queues import MemoryQueues
from lepton_runtime.oip import grpc_service_pb2 as pb
from lepton_runtime.state import Remove, Write

TIMEOUT_S = 20.0
INFER = "/inference.GRPCInferenceService/ModelInfer"
TRITON_CALLS = Path(__file__).parent / "tritonclient" / "calls.py"
LIMITS = Limits(max_request_bytes=4 * 1024 * 1024)


class Keys:
    """Keys as the cluster signs them."""

    def __init__(self, folder: Path) -> None:
        self._private = Ed25519PrivateKey.generate()
        public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(self._private.public_key()))
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [public | {"alg": "EdDSA", "kid": "lepton-1"}]}))
        self.verifier = TokenVerifier(self.jwks.read_text())
        self.signing_key = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def token(self, **claims: Any) -> str:
        usual = {
            "iss": "lepton",
            "aud": "lepton",
            "sub": "default",
            "role": 1,
            "jti": "key-1",
            "exp": int(time.time()) + 600,
        }
        return jwt.encode(usual | claims, self._private, "EdDSA", {"kid": "lepton-1"})


class Schedulers(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Stands in for the schedulers; remembers the key that came with the last call."""

    def __init__(self) -> None:
        self.authorization = ""
        self.asked_slow = Event()
        self.may_answer = asyncio.Event()

    async def GetJob(self, request: Any, context: Any) -> scheduler_pb2.GetJobResponse:
        self.authorization = dict(context.invocation_metadata()).get("authorization", "")
        if request.id == "slow":
            self.asked_slow.set()
            await self.may_answer.wait()
        if request.id == "missing":
            await context.abort(grpc.StatusCode.NOT_FOUND, "job 'missing' does not exist")
        return scheduler_pb2.GetJobResponse(job=job_pb2.Job(id=request.id, attempt=1))

    async def WatchJob(self, request: Any, context: Any) -> Any:
        for attempt in (1, 2):
            yield scheduler_pb2.WatchJobResponse(job=job_pb2.Job(id=request.id, attempt=attempt))

    async def StreamLogs(self, request: Any, context: Any) -> Any:
        for sequence in (1, 2):
            yield scheduler_pb2.StreamLogsResponse(
                line=job_pb2.LogLine(job_id=request.id, text=f"line {sequence}")
            )


class Replica:
    """An inference server with the model `scale` under some names."""

    def __init__(self, stack: ExitStack, model: Path, *names: str, tls: Tls | None = None) -> None:
        self.child = subprocess.Popen(
            [
                *(sys.executable, "-m", "lepton_worker.inference", "--control"),
                *("--http", "127.0.0.1:0", "--threads", "1"),
                *(_tls_arguments(tls) if tls else ()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        stack.callback(self._end)
        self.address = self._event()["http_address"]
        for name in names:
            self.load(name, "1", model)

    def load(self, name: str, version: str, path: Path) -> None:
        command = {"op": "load", "id": 1, "name": name, "version": version}
        command["steps"] = [{"path": str(path)}]
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(command).encode() + b"\n")
        assert self._event()["event"] == "loaded"

    def unload(self, name: str, version: str) -> None:
        command = {"op": "unload", "id": 1, "name": name, "version": version}
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(command).encode() + b"\n")
        assert self._event()["event"] == "unloaded"

    def kill(self) -> None:
        self.child.kill()
        self.child.wait(TIMEOUT_S)

    def _event(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        assert select.select([self.child.stdout], [], [], TIMEOUT_S)[0], "no event came"
        return json.loads(self.child.stdout.readline())

    def _end(self) -> None:
        self.kill()
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Cluster:
    """A gateway, and the records it follows."""

    def __init__(self, folder: Path, tls: Tls | None = None) -> None:
        self.keys = Keys(folder)
        self._tls = tls
        self.schedulers = Schedulers()
        self.queues = MemoryQueues()
        self.port = _free_port()
        self._folder = folder
        self._state, self._bus = MemoryState(), MemoryBus()
        self.reports: list[serving_pb2.ServingReport] = []
        self._loop = asyncio.new_event_loop()
        self._ready, self.stopping = Event(), asyncio.Event()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> Cluster:
        self._thread.start()
        assert self._ready.wait(TIMEOUT_S), "the gateway did not start"
        return self

    def signal(self, event: asyncio.Event) -> None:
        self._loop.call_soon_threadsafe(event.set)

    def __exit__(self, *_: object) -> None:
        self.signal(self.stopping)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the gateway did not stop"
        self._loop.close()

    async def _run(self) -> None:
        server = grpc.aio.server()
        scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(self.schedulers, server)
        if self._tls is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", _server_credentials(self._tls))
        await server.start()
        node = node_pb2.Node(id="s", role=node_pb2.NODE_ROLE_SCHEDULER, address=f"127.0.0.1:{port}")
        await self._state.commit([], [Write(keys.node("s"), node.SerializeToString())])
        place = Place(
            host="127.0.0.1",
            port=self.port,
            grpc_port=port,
            jwks=self.keys.jwks,
            data_dir=self._folder,
            tls=self._tls,
            concurrency=1,
        )
        queueing = await opened_queue(
            self.queues, self.keys.verifier, self.keys.signing_key, QueueingLimits(wait_s=60.0)
        )
        engines = Engines(self._state, self._bus, SystemClock(), "g", "1")
        listening = asyncio.create_task(self._listen())
        async with running_gateway(engines, place, LIMITS, queueing, version="0.1.0"):
            self._ready.set()
            await self.stopping.wait()
        listening.cancel()
        await server.stop(None)

    async def _listen(self) -> None:
        async for message in self._bus.listen("lepton.v1.serving.*"):
            self.reports.append(serving_pb2.ServingReport.FromString(message.payload))

    def split(self, name: str, address: str, revision: int, **traffic: int) -> None:
        """Versions (v1, v2 …) of a deployment on one server, and their shares in percent."""
        deployment = deployment_pb2.Deployment(traffic_revision=revision)
        deployment.spec.name = name
        writes = list[Write]()
        for key, percent in traffic.items():
            version = int(key.removeprefix("v"))
            deployment.traffic.add(version=version, percent=percent)
            writes += _replica_records(name, f"{name}-{key}-0", address, version)
        self.commit(*writes, Write(keys.deployment(name), deployment.SerializeToString()))

    def deploy(self, name: str, *addresses: str, **options: Any) -> None:
        """Records as scheduler and workers write them."""
        spec = deployment_pb2.DeploymentSpec(name=name, replicas=len(addresses), **options)
        deployment = deployment_pb2.Deployment(
            spec=spec, state=deployment_pb2.DEPLOYMENT_STATE_PROGRESSING
        )
        deployment.traffic.add(version=1, percent=100)
        writes = [Write(keys.deployment(name), deployment.SerializeToString())]
        for number, address in enumerate(addresses):
            writes += _replica_records(name, f"{name}-v1-{number}", address)
        self.commit(*writes)

    def remove(self, name: str, *numbers: int) -> None:
        """Take replicas away."""
        ids = [f"{name}-v1-{number}" for number in numbers]
        self.commit(*(Remove(keys.task("w", id_, 1)) for id_ in ids))

    def revoke(self, key_id: str) -> None:
        self.commit(Write(keys.revoked_key(key_id), str(int(time.time()) + 600).encode()))

    def commit(self, *operations: Write | Remove) -> None:
        self._await(self._state.commit([], operations))

    def _await(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

    def request(
        self, method: str, path: str, document: Any = None, *, token: str | None = "", **more: str
    ) -> Answer:
        connection = self.connection()
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if token is not None:
            headers["authorization"] = f"Bearer {token or self.keys.token()}"
        body = None if document is None else json.dumps(document)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read())
        finally:
            connection.close()

    def infer(self, name: str, values: list[float]) -> Answer:
        return self.request("POST", f"/v2/models/{name}/infer", _rest_input(values))

    def connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        context = ssl.create_default_context(cafile=self._tls.authority)
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=TIMEOUT_S, context=context
        )

    def channel(self) -> grpc.Channel:
        address = f"127.0.0.1:{self.port}"
        if self._tls is None:
            return grpc.insecure_channel(address)
        authority = Path(self._tls.authority).read_bytes()
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority))

    def call(self, method: str, message: Any, answer: Any, **claims: Any) -> Any:
        metadata = (("authorization", f"Bearer {self.keys.token(**claims)}"),)
        with self.channel() as channel:
            call = channel.unary_unary(
                method,
                request_serializer=lambda one: one.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            return call(message, timeout=TIMEOUT_S, metadata=metadata)


def _replica_records(deployment: str, task_id: str, address: str, version: int = 1) -> list[Write]:
    replica = task_pb2.ReplicaTask(deployment=deployment, model="scale", version=version)
    task = task_pb2.Task(id=task_id, node_id="w", attempt=1, replica=replica)
    status = task_pb2.TaskStatus(
        task_id=task_id,
        node_id="w",
        attempt=1,
        state=task_pb2.TASK_STATE_RUNNING,
        address=address,
    )
    return [
        Write(keys.task("w", task_id, 1), task.SerializeToString()),
        Write(keys.task_status("w", task_id), status.SerializeToString()),
    ]


def _rest_input(values: list[float]) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": values}
    return {"inputs": [tensor]}


def _grpc_input(name: str, values: list[float]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    tensor.contents.fp32_contents.extend(values)
    return request


def _tls_arguments(tls: Tls) -> list[str]:
    return [
        *("--tls-certificate", tls.certificate, "--tls-key", tls.key),
        *("--tls-client-authority", tls.authority),
    ]


def _server_credentials(tls: Tls) -> grpc.ServerCredentials:
    pair = (Path(tls.key).read_bytes(), Path(tls.certificate).read_bytes())
    return grpc.ssl_server_credentials([pair], Path(tls.authority).read_bytes(), True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def eventually(holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"did not hold within {timeout_s} s"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that doubles rows of any length."""
    rows = ["batch", "length"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, rows)],
    )
    path = tmp_path_factory.mktemp("model") / "scale.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Cluster]:
    """A gateway with the deployment `scale` on two replicas."""
    with ExitStack() as stack:
        replicas = [Replica(stack, model, "scale") for _ in range(2)]
        cluster = stack.enter_context(Cluster(tmp_path_factory.mktemp("gateway")))
        cluster.deploy("scale", *(replica.address for replica in replicas))
        eventually(lambda: cluster.infer("scale", [1.0]).status == 200)
        yield cluster


def test_only_health_needs_no_key(cluster: Cluster) -> None:
    assert cluster.request("GET", "/v2/health/live", token=None).json == {"live": True}
    assert cluster.request("GET", "/v2/health/ready", token=None).json == {"ready": True}
    for path in ("/v2", "/v2/models", "/v2/models/scale", "/v1/jobs/j"):
        refused = cluster.request("GET", path, token=None)
        assert refused.status == 401
        assert "authorization: Bearer KEY" in refused.json["error"]


def test_bad_keys_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    bad = [
        cluster.keys.token(exp=int(time.time()) - 60),
        cluster.keys.token(iss="other"),
        cluster.keys.token(aud="other"),
        Keys(tmp_path).token(),
    ]
    statuses = [cluster.request("GET", "/v2", token=token).status for token in bad]
    assert statuses == [401, 401, 403, 401]
    no_role = cluster.request("GET", "/v2", token=cluster.keys.token(role=0))
    assert no_role.status == 403
    assert "error" in no_role.json


def test_a_revoked_key_is_refused(cluster: Cluster) -> None:
    token = cluster.keys.token(jti="stolen")
    assert cluster.request("GET", "/v2", token=token).status == 200
    cluster.revoke("stolen")
    eventually(lambda: cluster.request("GET", "/v2", token=token).status == 403)
    assert cluster.request("GET", "/v2").status == 200


def test_versions_share_requests_as_told_and_are_reported(cluster: Cluster, model: Path) -> None:
    def asked(path: str = "/v2/models/split/infer") -> str:
        return cluster.request("POST", path, _rest_input([1.0])).json["model_version"]

    def called(version: str = "") -> str:
        request = _grpc_input("split", [1.0])
        request.model_version = version
        return cluster.call(INFER, request, pb.ModelInferResponse).model_version

    def reported() -> dict[int, list[serving_pb2.VersionLoad]]:
        """What was reported of each version since its share was changed last."""
        found: dict[int, list[serving_pb2.VersionLoad]] = {1: [], 2: []}
        for report in cluster.reports:
            for load in report.deployments:
                if load.name == "split" and load.traffic_revision == 7:
                    for version in load.versions:
                        found[version.version].append(version)
        return found

    with ExitStack() as stack:
        replica = Replica(stack, model, "split")
        replica.load("split", "2", model)
        cluster.split("split", replica.address, 6, v1=100, v2=0)
        eventually(lambda: cluster.infer("split", [1.0]).status == 200)
        assert {asked() for _ in range(20)} == {"1"}
        cluster.split("split", replica.address, 7, v1=50, v2=50)
        eventually(lambda: any(reported()[2]))
        answers = [asked() for _ in range(60)] + [called() for _ in range(20)]
        assert 15 < answers.count("1") < 65
        for version in ("1", "2"):
            assert asked(f"/v2/models/split/versions/{version}/infer") == version
            assert called(version) == version
        missing = cluster.request("POST", "/v2/models/split/versions/3/infer", _rest_input([1.0]))
        assert missing.status == 404
        eventually(lambda: sum(v.requests for both in reported().values() for v in both) >= 85)
        eventually(lambda: sum(v.errors for both in reported().values() for v in both) == 1)
        assert {v.healthy for both in reported().values() for v in both} == {1}
        cluster.split("split", replica.address, 8, v2=100)
        eventually(
            lambda: any(
                load.name == "split" and load.traffic_revision == 8
                for load in cluster.reports[-1].deployments
            )
        )
        assert {asked() for _ in range(20)} == {"2"}
        cluster.commit(Remove(keys.deployment("split")))


def test_requests_wait_for_a_sleeping_model(cluster: Cluster, model: Path) -> None:
    asleep = deployment_pb2.Deployment(traffic_revision=1)
    asleep.spec.name = "dozy"
    asleep.spec.scale.max_replicas = 1
    asleep.traffic.add(version=1, percent=100)

    def ask(number: int) -> Any:
        if number % 2:
            return cluster.infer("dozy", [float(number)]).json["outputs"][0]["data"]
        answer = cluster.call(INFER, _grpc_input("dozy", [float(number)]), pb.ModelInferResponse)
        return np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()

    def waiting() -> int:
        loads = [one for one in cluster.reports[-1].deployments if one.name == "dozy"]
        return loads[0].waiting if loads else 0

    with ExitStack() as stack:
        replica = Replica(stack, model, "dozy")
        cluster.commit(Write(keys.deployment("dozy"), asleep.SerializeToString()))
        ready = "/v2/models/dozy/ready"
        eventually(lambda: cluster.request("GET", ready).status == 200)
        assert "dozy" in cluster.request("GET", "/v2/models").json["models"]
        with ThreadPoolExecutor(6) as threads:
            answers = threads.map(ask, range(6))
            eventually(lambda: waiting() == 6)
            cluster.commit(*_replica_records("dozy", "dozy-v1-0", replica.address))
            assert list(answers) == [[2.0 * number] for number in range(6)]
        eventually(lambda: waiting() == 0)
        cluster.commit(Remove(keys.deployment("dozy")))


def test_missing_key_over_grpc(cluster: Cluster) -> None:
    with cluster.channel() as channel:
        for path in (INFER, "/lepton_ai.proto.v1.SchedulerService/GetJob"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(path)(b"", timeout=TIMEOUT_S)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "authorization: Bearer KEY" in refused.value.details()


def test_inference_over_rest_and_grpc(cluster: Cluster) -> None:
    answer = cluster.infer("scale", [1.0, 2.0])
    assert answer.json["outputs"][0]["data"] == [2.0, 4.0]
    assert cluster.request("GET", "/v2/models/scale/versions/1/ready").status == 200
    message = cluster.call(INFER, _grpc_input("scale", [3.0]), pb.ModelInferResponse)
    assert message.model_name == "scale"
    assert message.outputs[0].shape == [1, 1]


def test_a_large_request_passes_and_a_larger_one_does_not(cluster: Cluster) -> None:
    values = [1.0] * 500_000  # 2.5 MB of JSON, 2 MB of message.
    assert cluster.infer("scale", values).status == 200
    cluster.call(INFER, _grpc_input("scale", values), pb.ModelInferResponse)
    # Refused for what it says it will send, before it does.
    length = str(LIMITS.max_request_bytes + 1)
    refused = cluster.request("POST", "/v2/models/scale/infer", content_length=length)
    assert (refused.status, "too large" in refused.json["error"]) == (413, True)
    with pytest.raises(grpc.RpcError) as too_large:
        cluster.call(INFER, _grpc_input("scale", values * 3), pb.ModelInferResponse)
    assert too_large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert too_large.value.details() == refused.json["error"]


def test_unknown_models_are_named(cluster: Cluster) -> None:
    answer = cluster.infer("scael", [1.0])
    assert answer.status == 404
    assert "'scael'" in answer.json["error"]
    assert "did you mean 'scale'?" in answer.json["error"]
    with pytest.raises(grpc.RpcError) as missing:
        cluster.call(INFER, _grpc_input("scael", [1.0]), pb.ModelInferResponse)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert "did you mean 'scale'?" in missing.value.details()


def test_bad_input_says_the_same_over_rest_and_grpc(cluster: Cluster) -> None:
    document = _rest_input([1.0])
    document["inputs"][0]["name"] = "z"
    answer = cluster.request("POST", "/v2/models/scale/infer", document)
    message = _grpc_input("scale", [1.0])
    message.inputs[0].name = "z"
    with pytest.raises(grpc.RpcError) as wrong:
        cluster.call(INFER, message, pb.ModelInferResponse)
    assert answer.status == 400
    assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert wrong.value.details() == answer.json["error"]


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_rest_answers_are_compressed_on_request(cluster: Cluster, size: int) -> None:
    values = [float(number) for number in range(size)]
    plain = cluster.infer("scale", values)
    packed = cluster.request(
        "POST", "/v2/models/scale/infer", _rest_input(values), Accept_Encoding="gzip"
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < 0.6 * len(plain.body)
    assert gzip.decompress(packed.body) == plain.body


def test_compressed_messages_are_answered(cluster: Cluster) -> None:
    metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
    with cluster.channel() as channel:
        infer = channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
        for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            answer = infer(
                _grpc_input("scale", [1.0] * 100).SerializeToString(),
                timeout=TIMEOUT_S,
                metadata=metadata,
                compression=algorithm,
            )
            assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [2.0] * 100
        with pytest.raises(grpc.RpcError) as unknown:
            infer(
                _grpc_input("scael", [1.0]).SerializeToString(),
                timeout=TIMEOUT_S,
                metadata=metadata,
                compression=grpc.Compression.Gzip,
            )
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        assert "did you mean 'scale'" in unknown.value.details()


def test_what_compressed_messages_hold_is_limited(cluster: Cluster) -> None:
    metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
    with cluster.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(INFER)(
            bytes(2 * LIMITS.max_request_bytes),
            timeout=TIMEOUT_S,
            metadata=metadata,
            compression=grpc.Compression.Gzip,
        )
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def _stream(cluster: Cluster, requests: Iterator[pb.ModelInferRequest], **claims: Any) -> Any:
    metadata = (("authorization", f"Bearer {cluster.keys.token(**claims)}"),)
    with cluster.channel() as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        yield from call(requests, timeout=TIMEOUT_S, metadata=metadata)


def test_a_stream_is_answered_in_order_although_a_replica_dies(
    cluster: Cluster, model: Path
) -> None:
    with ExitStack() as stack:
        replicas = [Replica(stack, model, "flow") for _ in range(2)]
        cluster.deploy("flow", *(replica.address for replica in replicas))
        eventually(lambda: cluster.infer("flow", [1.0]).status == 200)

        def requests() -> Iterator[pb.ModelInferRequest]:
            for number in range(300):
                if number == 100:
                    replicas[0].kill()
                request = _grpc_input("flow" if number != 150 else "flew", [float(number)])
                request.id = str(number)
                yield request

        answers = list(_stream(cluster, requests()))
        cluster.remove("flow", 0, 1)
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(300)]
    assert "did you mean 'flow'" in answers.pop(150).error_message
    for answer in answers:
        assert not answer.error_message
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        [value] = np.frombuffer(answer.infer_response.raw_output_contents[0], "<f4")
        assert value == 2 * int(answer.infer_response.id)


def test_a_stream_needs_a_key_for_each_of_its_requests(cluster: Cluster) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        next(_stream(cluster, iter([_grpc_input("scale", [1.0])]), exp=int(time.time()) - 60))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

    def requests() -> Iterator[pb.ModelInferRequest]:
        yield _grpc_input("scale", [1.0])
        assert first_came.wait(TIMEOUT_S)
        cluster.revoke("streaming")
        token = cluster.keys.token(jti="streaming")
        eventually(lambda: cluster.request("GET", "/v2", token=token).status == 403)
        yield _grpc_input("scale", [1.0])

    first_came = Event()
    stream = _stream(cluster, requests(), jti="streaming")
    assert not next(stream).error_message
    first_came.set()
    assert next(stream).error_message


def test_reflection_describes_what_is_offered(cluster: Cluster) -> None:
    metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
    with cluster.channel() as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="inference.GRPCInferenceService"
            ),
        ]
        services, file = call(iter(asked), timeout=TIMEOUT_S, metadata=metadata)
    names = {service.name for service in services.list_services_response.service}
    assert {"inference.GRPCInferenceService", "lepton_ai.proto.v1.SchedulerService"} <= names
    [content] = file.file_descriptor_response.file_descriptor_proto
    described = descriptor_pb2.FileDescriptorProto.FromString(content)
    assert "ModelInferRequest" in {message.name for message in described.message_type}


def test_an_unmodified_tritonclient(
    cluster: Cluster, triton_python: Path, triton_models: dict[str, Path]
) -> None:
    with ExitStack() as stack:
        replica = Replica(stack, triton_models["tens:1"], "tens")
        replica.load("tens", "2", triton_models["tens:2"])
        replica.load("echo", "1", triton_models["echo:1"])
        cluster.split("tens", replica.address, 1, v1=0, v2=100)
        cluster.deploy("echo", replica.address)
        eventually(lambda: cluster.infer("tens", [1.0] * 4).status == 200)
        eventually(lambda: cluster.request("GET", "/v2/models/echo").status == 200)
        address = f"127.0.0.1:{cluster.port}"
        calls = [str(triton_python), str(TRITON_CALLS), address, address, cluster.keys.token()]
        done = subprocess.run(calls, check=False, timeout=TIMEOUT_S)
        cluster.commit(Remove(keys.deployment("tens")))
        cluster.remove("echo", 0)
    assert done.returncode == 0


def test_the_server_describes_itself(cluster: Cluster) -> None:
    service = "/inference.GRPCInferenceService"
    assert cluster.request("GET", "/v2").json["name"] == "lepton"
    assert "scale" in cluster.request("GET", "/v2/models").json["models"]
    index = cluster.request("POST", "/v2/repository/index").json
    assert {"name": "scale", "version": "1", "state": "READY", "reason": ""} in index
    live = cluster.call(f"{service}/ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
    assert live.live
    about = cluster.call(
        f"{service}/ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse
    )
    assert (about.name, about.version) == ("lepton", "0.1.0")
    models = cluster.call(
        f"{service}/RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse
    ).models
    assert ("scale", "1", "READY") in {(one.name, one.version, one.state) for one in models}
    ready = cluster.call(
        f"{service}/ModelReady", pb.ModelReadyRequest(name="scale"), pb.ModelReadyResponse
    )
    assert ready.ready
    health = cluster.call(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest(),
        health_pb2.HealthCheckResponse,
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    paths = cluster.request("GET", "/openapi.json", token=None).json["paths"]
    assert "post" in paths["/v1/jobs"]
    assert b"openapi.json" in cluster.request("GET", "/docs", token=None).body


def test_management_over_grpc(cluster: Cluster) -> None:
    path = "/lepton_ai.proto.v1.SchedulerService"
    request = scheduler_pb2.GetJobRequest(id="j-1")
    answer = cluster.call(f"{path}/GetJob", request, scheduler_pb2.GetJobResponse)
    assert answer.job.id == "j-1"
    assert cluster.schedulers.authorization.startswith("Bearer ")
    with pytest.raises(grpc.RpcError) as missing:
        request = scheduler_pb2.GetJobRequest(id="missing")
        cluster.call(f"{path}/GetJob", request, scheduler_pb2.GetJobResponse)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert missing.value.details() == "job 'missing' does not exist"
    metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
    with cluster.channel() as channel:
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        watched = stub.WatchJob(
            scheduler_pb2.WatchJobRequest(id="j"), timeout=TIMEOUT_S, metadata=metadata
        )
        assert [event.job.attempt for event in watched] == [1, 2]


def test_management_over_rest(cluster: Cluster) -> None:
    answer = cluster.request("GET", "/v1/jobs/j-1")
    assert (answer.status, answer.json["job"]["id"]) == (200, "j-1")
    # The names of the protos, and fields that have their default.
    assert answer.json["job"]["idempotency_key"] == ""
    missing = cluster.request("GET", "/v1/jobs/missing")
    assert (missing.status, missing.json["error"]) == (404, "job 'missing' does not exist")
    lines = cluster.request("GET", "/v1/jobs/j/logs").body.splitlines()
    assert [json.loads(line)["line"]["text"] for line in lines] == ["line 1", "line 2"]


def test_errors_of_management_over_rest(cluster: Cluster) -> None:
    unknown = cluster.request("GET", "/v1/jbos")
    assert (unknown.status, "/v1/jbos" in unknown.json["error"]) == (404, True)
    malformed = cluster.request("POST", "/v1/jobs", {"spec": {"priority": "high"}})
    assert (malformed.status, "high" in malformed.json["error"]) == (400, True)
    nobody = cluster.request("GET", "/v1/datasets")
    assert (nobody.status, "error" in nobody.json) == (503, True)


def test_a_deployment_without_replicas_says_so(cluster: Cluster) -> None:
    cluster.deploy("empty")
    eventually(lambda: cluster.infer("empty", [1.0]).status == 503)
    assert "no replica" in cluster.infer("empty", [1.0]).json["error"]
    with pytest.raises(grpc.RpcError) as nobody:
        cluster.call(INFER, _grpc_input("empty", [1.0]), pb.ModelInferResponse)
    assert nobody.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "no replica" in nobody.value.details()


def test_a_dead_replica_is_an_unavailable_one(cluster: Cluster) -> None:
    cluster.deploy("dead", f"127.0.0.1:{_free_port()}")
    eventually(lambda: "reachable" in cluster.infer("dead", [1.0]).body.decode())
    assert cluster.infer("dead", [1.0]).status == 503
    with pytest.raises(grpc.RpcError) as nobody:
        cluster.call(INFER, _grpc_input("dead", [1.0]), pb.ModelInferResponse)
    assert nobody.value.code() is grpc.StatusCode.UNAVAILABLE
    assert nobody.value.details() == cluster.infer("dead", [1.0]).json["error"]


def test_a_new_deployment_answers_within_a_second(cluster: Cluster, model: Path) -> None:
    with ExitStack() as stack:
        replica = Replica(stack, model, "fresh")
        cluster.deploy("fresh", replica.address)
        eventually(lambda: cluster.infer("fresh", [1.0]).status == 200, timeout_s=1.0)
        cluster.remove("fresh", 0)
        eventually(lambda: cluster.infer("fresh", [1.0]).status == 503)


def test_no_request_fails_when_a_replica_is_killed(cluster: Cluster, model: Path) -> None:
    with ExitStack() as stack:
        replicas = [Replica(stack, model, "busy") for _ in range(2)]
        cluster.deploy("busy", *(replica.address for replica in replicas))
        eventually(lambda: cluster.infer("busy", [1.0]).status == 200)
        stop, statuses = Event(), list[int]()

        def send_rest() -> None:
            connection = cluster.connection()
            headers = {"authorization": f"Bearer {cluster.keys.token()}"}
            body = json.dumps(_rest_input([1.0]))
            while not stop.is_set():
                connection.request("POST", "/v2/models/busy/infer", body, headers)
                response = connection.getresponse()
                response.read()
                statuses.append(response.status)
            connection.close()

        def send_grpc() -> None:
            metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
            message = _grpc_input("busy", [1.0]).SerializeToString()
            with cluster.channel() as channel:
                call = channel.unary_unary(INFER)
                while not stop.is_set():
                    call(message, timeout=TIMEOUT_S, metadata=metadata)
                    statuses.append(200)

        with ThreadPoolExecutor(8) as pool:
            senders = [pool.submit(send) for send in [send_rest, send_grpc] * 4]
            try:
                eventually(lambda: len(statuses) > 200)
                replicas[0].kill()
                killed = len(statuses)
                eventually(lambda: len(statuses) > killed + 2000)
            finally:
                stop.set()
            for sender in senders:
                sender.result(TIMEOUT_S)
    assert set(statuses) == {200}


def test_a_slow_replica_is_hedged(cluster: Cluster, model: Path) -> None:
    with ExitStack() as stack:
        replicas = [Replica(stack, model, "hedged") for _ in range(2)]
        addresses = [replica.address for replica in replicas]
        cluster.deploy("hedged", *addresses, hedge_after_s=0.1)
        eventually(lambda: cluster.infer("hedged", [1.0]).status == 200)
        slow = replicas[0].child
        slow.send_signal(signal.SIGSTOP)
        try:
            waited = list[float]()
            for _ in range(10):
                began = time.monotonic()
                assert cluster.infer("hedged", [1.0]).status == 200
                waited.append(time.monotonic() - began)
        finally:
            slow.send_signal(signal.SIGCONT)
    assert 0.1 <= max(waited) < 1.0


def test_mutual_tls_to_services_and_replicas(tmp_path: Path, model: Path) -> None:
    now = datetime.now(UTC)
    Authority.create(now).issue(tmp_path / "tls", ["127.0.0.1"], now)
    names = ("tls.crt", "tls.key", "ca.crt")
    tls = Tls(*(str(tmp_path / "tls" / name) for name in names))
    with ExitStack() as stack:
        replica = Replica(stack, model, "scale", tls=tls)
        cluster = stack.enter_context(Cluster(tmp_path, tls))
        cluster.deploy("scale", replica.address)
        eventually(lambda: cluster.infer("scale", [1.0]).status == 200)
        cluster.call(INFER, _grpc_input("scale", [3.0]), pb.ModelInferResponse)
        answer = cluster.request("GET", "/v1/jobs/j-1")
        assert (answer.status, answer.json["job"]["id"]) == (200, "j-1")


def says_goodbye(cluster: Cluster) -> bool:
    try:
        answer = cluster.request("GET", "/v2/health/live", token=None)
    except ConnectionError:
        return True
    return answer.headers.get("connection") == "close"


def test_requests_in_progress_end_before_the_gateway_does(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster, cluster.channel() as channel:
        metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        request = scheduler_pb2.GetJobRequest(id="slow")
        slow = stub.GetJob.future(request, timeout=TIMEOUT_S, metadata=metadata)
        assert cluster.schedulers.asked_slow.wait(TIMEOUT_S)
        cluster.signal(cluster.stopping)
        eventually(lambda: says_goodbye(cluster))
        cluster.signal(cluster.schedulers.may_answer)
        assert slow.result(TIMEOUT_S).job.id == "slow"
