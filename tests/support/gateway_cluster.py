"""The gateway with a real Envoy, real inference servers and a stand-in for the schedulers."""

from __future__ import annotations

import asyncio
import http.client
import json
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc
import jwt
import onnx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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
from lepton_runtime.clock import SystemClock
from lepton_runtime.http import Handler, HttpLimits, HttpServer
from lepton_runtime.http2.connection import speak
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_runtime.memory_queues import MemoryQueues
from lepton_runtime.oip import grpc_service_pb2 as pb
from lepton_runtime.state import Remove, Write

__all__ = [
    "INFER",
    "LIMITS",
    "TIMEOUT_S",
    "Answer",
    "Cluster",
    "Keys",
    "Replica",
    "eventually",
    "free_port",
    "grpc_input",
    "replica_records",
    "rest_input",
    "save_doubling",
]

TIMEOUT_S = 20.0
INFER = "/inference.GRPCInferenceService/ModelInfer"
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

    def load(self, name: str, version: str, path: Path, **options: int) -> None:
        command = {"op": "load", "id": 1, "name": name, "version": version, "options": options}
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
        self.port = free_port()
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
            writes += replica_records(name, f"{name}-{key}-0", address, version)
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
            writes += replica_records(name, f"{name}-v1-{number}", address)
        self.commit(*writes)

    def remove(self, name: str, *numbers: int) -> None:
        """Take replicas away."""
        ids = [f"{name}-v1-{number}" for number in numbers]
        self.commit(*(Remove(keys.task("w", id_, 1)) for id_ in ids))

    @contextmanager
    def serving(self, handler: Handler) -> Iterator[str]:
        """The address of a replica that is made of a function."""

        async def started() -> tuple[HttpServer, str]:
            server = HttpServer(handler, HttpLimits(), speak({}))
            host, port = await server.listen("127.0.0.1", 0, None)
            return server, f"{host}:{port}"

        server, address = self._await(started())
        yield address
        self._await(server.drain(0))

    def healthy(self, name: str) -> int:
        """Replicas of all versions of a deployment that the newest report calls healthy."""
        loads = [one for report in self.reports[-1:] for one in report.deployments]
        return sum(one.healthy for load in loads if load.name == name for one in load.versions)

    def revoke(self, key_id: str) -> None:
        self.commit(Write(keys.revoked_key(key_id), str(int(time.time()) + 600).encode()))

    def commit(self, *operations: Write | Remove) -> None:
        self._await(self._state.commit([], operations))

    def _await(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

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
        return self.request("POST", f"/v2/models/{name}/infer", rest_input(values))

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


def replica_records(deployment: str, task_id: str, address: str, version: int = 1) -> list[Write]:
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


def rest_input(values: list[float]) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": values}
    return {"inputs": [tensor]}


def grpc_input(name: str, values: list[float]) -> pb.ModelInferRequest:
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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def eventually(holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"did not hold within {timeout_s} s"
        time.sleep(0.01)


def save_doubling(folder: Path) -> Path:
    """A model that doubles rows of any length."""
    rows = ["batch", "length"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, rows)],
    )
    path = folder / "scale.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path
