"""Both sides of the protocol over a service whose model is a stand-in."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton_ai.errors import InvalidArgumentError, UnavailableError
from lepton_ai.oip import Tensor
from lepton_ai.oip.messages import INFERENCE_SERVICE
from lepton_ai.oip.rest import Answer, decode_answer
from lepton_runtime.compression import inflate
from lepton_runtime.http import Exchange
from lepton_runtime.oip import grpc_service_pb2 as pb
from lepton_worker.inference import metrics
from lepton_worker.inference.batcher import Batcher
from lepton_worker.inference.grpc_api import GrpcApi
from lepton_worker.inference.grpc_codec import encode_answer, make_request, read_request
from lepton_worker.inference.options import ServingOptions
from lepton_worker.inference.repository import ModelSource, Repository, Step
from lepton_worker.inference.repository_control import AgentsControl, ClientsControl
from lepton_worker.inference.residents import Residents
from lepton_worker.inference.rest_api import RestApi, answer_encoding
from lepton_worker.inference.service import InferenceService
from lepton_worker.inference.signature import Signature, TensorSpec

TIMEOUT_S = 10.0
MAX_BODY_BYTES = 10_000
OPTIONS = ServingOptions(max_batch_size=4, queue_capacity=10)


class StubModel:
    """Answers with the sum of each row."""

    size_bytes = 1
    uniform = True
    signature = Signature(
        (TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("sum", "FP32", (-1,)),), 4
    )

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        return [arrays[0].sum(axis=1)]


class StubFile:
    """Where the stub is loaded from."""

    expected_bytes = 0

    async def load(self) -> StubModel:
        return StubModel()

    def close(self) -> None:
        pass


class StubExchange:
    """A request, and the answer once it is there."""

    gone = False

    def __init__(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        self.method = method
        self.path = path
        self.body = body
        self.headers = {
            name.replace("_", "-").encode(): value.encode() for name, value in headers.items()
        }
        self.answered: asyncio.Future[tuple[int, bytes, bytes]] = (
            asyncio.get_running_loop().create_future()
        )

    def reply(self, status: int, headers: bytes, body: bytes) -> None:
        self.answered.set_result((status, headers, body))


class Sides:
    """REST, gRPC and the repository behind them."""

    def __init__(self, tasks: asyncio.TaskGroup, batcher: Batcher) -> None:
        self.repository = Repository(self.prepare, Residents(batcher, limit_bytes=0))
        self.service = InferenceService(self.repository, batcher)
        self.service.ready = True
        control = ClientsControl(self.repository, tasks)
        self.rest = RestApi(self.service, control, MAX_BODY_BYTES)
        self.grpc = GrpcApi(self.service, control)
        self.loads = 0

    async def prepare(self, source: ModelSource) -> StubFile:
        self.loads += 1
        if source.name == "broken":
            raise InvalidArgumentError("not a model")
        return StubFile()

    async def get(self, path: str) -> tuple[int, Any]:
        return await self.call("GET", path)

    async def call(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        body = b"" if document is None else orjson.dumps(document)
        status, _, answer = await self.exchange(StubExchange(method, path, body))
        return status, orjson.loads(answer)

    async def exchange(self, exchange: StubExchange) -> tuple[int, bytes, bytes]:
        api = self.grpc if exchange.path.startswith(INFERENCE_SERVICE) else self.rest
        api.handle(cast("Exchange", exchange))
        return await exchange.answered

    async def grpc_call(self, method: str, message: Any) -> tuple[int, bytes, bytes]:
        return await self.exchange(
            StubExchange("POST", INFERENCE_SERVICE + method, message.SerializeToString())
        )


def scenario(check: Callable[[Sides], Any]) -> None:
    """Run a check with version 1 and 2 of `adder` loaded."""

    async def body() -> None:
        batcher = Batcher(1, asyncio.get_running_loop())
        try:
            async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as tasks:
                sides = Sides(tasks, batcher)
                for version in ("2", "1"):
                    await sides.repository.load(
                        ModelSource(
                            "adder", version, Path("/m"), ServingOptions(4, queue_capacity=10)
                        )
                    )
                await check(sides)
        finally:
            batcher.stop()

    asyncio.run(body())


def request(*rows: list[float], **fields: Any) -> dict[str, Any]:
    spec = {"name": "x", "datatype": "FP32", "shape": [len(rows), 3], "data": rows}
    return {"inputs": [spec], **fields}


def test_rest_infers_and_echoes_the_id() -> None:
    async def check(sides: Sides) -> None:
        status, answer = await sides.call(
            "POST", "/v2/models/adder/infer", request([1, 2, 3], [4, 5, 6], id="q")
        )
        assert status == 200
        assert answer["outputs"][0]["data"] == [6.0, 15.0]
        assert (answer["id"], answer["model_version"]) == ("q", "2")

    scenario(check)


def test_rest_gives_chosen_outputs_as_bytes() -> None:
    async def check(sides: Sides) -> None:
        document = request(
            [1, 2, 3], outputs=[{"name": "sum", "parameters": {"binary_data": True}}]
        )
        status, headers, body = await sides.exchange(
            StubExchange("POST", "/v2/models/adder/infer", orjson.dumps(document))
        )
        assert status == 200
        length = int(headers.split(b"inference-header-content-length: ")[1].split(b"\r\n")[0])
        assert decode_answer(body, length).outputs[0].array.tolist() == [6.0]

    scenario(check)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v2/models/nothing", 404, "there are adder"),
        ("GET", "/v2/models/adder/versions/7/ready", 404, "there are 1, 2"),
        ("GET", "/v2/models/adder/nothing", 404, "does not exist"),
        ("GET", "/nothing", 404, "does not exist"),
        ("GET", "/v2/models/adder/infer", 400, "use POST"),
        ("POST", "/v2/models/adder/infer", 400, "not JSON"),
        ("POST", "/v2/models/%2e%2e/infer", 404, "'..' does not exist"),
        ("POST", "/v2/repository/models/nothing/load", 404, "'nothing' does not exist"),
    ],
)
def test_rest_names_what_is_wrong(method: str, path: str, status: int, words: str) -> None:
    async def check(sides: Sides) -> None:
        answered, answer = await sides.call(method, path)
        assert answered == status
        assert words in answer["error"]

    scenario(check)


def test_readiness_follows_the_server_and_the_models() -> None:
    async def check(sides: Sides) -> None:
        assert await sides.get("/v2/health/ready") == (200, {"ready": True})
        assert (await sides.get("/v2/models/adder/ready"))[0] == 200
        sides.service.ready = False
        assert await sides.get("/v2/health/ready") == (503, {"ready": False})
        assert await sides.get("/v2/health/live") == (200, {"live": True})
        status, _ = await sides.call("POST", "/v2/models/adder/infer", request([1, 2, 3]))
        assert status == 503

    scenario(check)


def test_clients_unload_and_load_what_is_known() -> None:
    async def check(sides: Sides) -> None:
        assert (await sides.call("POST", "/v2/repository/models/adder/unload"))[0] == 200
        assert (await sides.get("/v2/models/adder/ready"))[0] == 503
        _, index = await sides.call("POST", "/v2/repository/index")
        assert {entry["state"] for entry in index} == {"UNAVAILABLE"}
        assert (await sides.call("POST", "/v2/repository/index", {"ready": True}))[1] == []
        assert (await sides.call("POST", "/v2/repository/models/adder/load"))[0] == 200
        assert (await sides.get("/v2/models/adder"))[1]["versions"] == ["1", "2"]

    scenario(check)


def test_a_failed_load_leaves_its_reason() -> None:
    async def check(sides: Sides) -> None:
        with pytest.raises(InvalidArgumentError):
            await sides.repository.load(ModelSource("broken", "1", (Step(Path("/m")),), OPTIONS))
        with pytest.raises(UnavailableError, match="not a model"):
            sides.repository.find("broken")
        assert (await sides.get("/v2/health/ready"))[0] == 200

    scenario(check)


def test_a_queue_that_is_full_answers_when_to_come_back() -> None:
    async def check(sides: Sides) -> None:
        sides.repository.find("adder").lane.queue.capacity = 0
        exchange = StubExchange("POST", "/v2/models/adder/infer", orjson.dumps(request([1, 2, 3])))
        status, headers, _ = await sides.exchange(exchange)
        assert status == 429
        assert b"retry-after: 1\r\n" in headers
        message = pb.ModelInferRequest(model_name="adder")
        status, headers, _ = await sides.grpc_call("ModelInfer", message)
        details = headers.split(b"lepton-grpc-details: ")[1].split(b"\r\n")[0]
        told = status_pb2.Status.FromString(base64.b64decode(details))
        assert (status, told.code) == (429, 8)
        assert told.details[0].Unpack(error_details_pb2.RetryInfo())

    scenario(check)


def test_compressed_bodies_are_limited_by_what_they_hold() -> None:
    async def check(sides: Sides) -> None:
        for content, status in ((orjson.dumps(request([1, 2, 3])), 200), (b" " * 20_000, 400)):
            exchange = StubExchange(
                "POST", "/v2/models/adder/infer", gzip.compress(content), content_encoding="gzip"
            )
            assert (await sides.exchange(exchange))[0] == status
        exchange = StubExchange("POST", "/v2/models/adder/infer", b"", content_encoding="br")
        assert (await sides.exchange(exchange))[0] == 400

    scenario(check)


@pytest.mark.parametrize(
    ("accepted", "size", "binary", "encoding"),
    [
        (b"gzip", 1024, True, b"gzip"),
        (b"deflate", 1024, True, b"deflate"),
        (b"gzip", 1023, True, b""),
        (b"gzip, deflate, br", 1024, True, b""),
        (b"br, Deflate, gzip;q=0.5", 1024, False, b"gzip"),
        (b"deflate, gzip; q=0", 1024, False, b"deflate"),
        (b"gzip;q=0", 1024, True, b""),
        (b"identity", 1024, False, b""),
        (b"", 1024, False, b""),
    ],
)
def test_answers_are_compressed_for_those_who_ask(
    accepted: bytes, size: int, binary: bool, encoding: bytes
) -> None:
    assert answer_encoding(accepted, size, binary) == encoding


def test_inflate_takes_whole_streams_up_to_the_limit() -> None:
    packed = gzip.compress(b"x" * 100)
    assert inflate(packed, 31, 101) == b"x" * 100
    for broken, limit in ((packed, 99), (packed[:-9], 200), (b"junk", 200)):
        with pytest.raises(InvalidArgumentError):
            inflate(broken, 31, limit)


def test_grpc_infers_from_raw_and_from_typed_contents() -> None:
    async def check(sides: Sides) -> None:
        raw = pb.ModelInferRequest(model_name="adder", model_version="1", id="7")
        raw.inputs.add(name="x", datatype="FP32", shape=[1, 3])
        raw.raw_input_contents.append(np.array([1, 2, 3], np.float32).tobytes())
        typed = pb.ModelInferRequest(model_name="adder")
        tensor = typed.inputs.add(name="x", datatype="FP32", shape=[1, 3])
        tensor.contents.fp32_contents.extend([1, 2, 3])
        for message, version in ((raw, "1"), (typed, "2")):
            status, _, body = await sides.grpc_call("ModelInfer", message)
            assert status == 200
            answer = pb.ModelInferResponse.FromString(body)
            assert (answer.model_version, answer.id) == (version, message.id)
            assert np.frombuffer(answer.raw_output_contents[0], np.float32) == [6.0]

    scenario(check)


def test_grpc_errors_carry_their_status_and_text() -> None:
    async def check(sides: Sides) -> None:
        status, headers, body = await sides.grpc_call(
            "ModelConfig", pb.ModelConfigRequest(name="nö\n")
        )
        assert (status, body) == (404, b"")
        assert b"lepton-grpc-status: 5\r\n" in headers
        assert b"lepton-grpc-message: model 'n%C3%B6\\n' does not exist" in headers
        exchange = StubExchange("POST", INFERENCE_SERVICE + "ModelInfer", b"\xff\xff")
        assert (await sides.exchange(exchange))[0] == 400
        exchange = StubExchange("POST", INFERENCE_SERVICE + "Nothing")
        assert (await sides.exchange(exchange))[0] == 501

    scenario(check)


def test_grpc_index_can_leave_out_what_is_not_ready() -> None:
    async def check(sides: Sides) -> None:
        await sides.repository.unload("adder", "1")
        for ready, count in ((False, 2), (True, 1)):
            message = pb.RepositoryIndexRequest(ready=ready)
            _, _, body = await sides.grpc_call("RepositoryIndex", message)
            assert len(pb.RepositoryIndexResponse.FromString(body).models) == count

    scenario(check)


def test_grpc_load_takes_the_name_where_kserve_puts_it() -> None:
    async def check(sides: Sides) -> None:
        before = sides.loads
        message = pb.RepositoryModelLoadRequest(repository_name="adder")
        assert (await sides.grpc_call("RepositoryModelLoad", message))[0] == 200
        assert sides.loads == before + 2

    scenario(check)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"raw": 2}, "raw_input_contents has 2 entries"),
        ({"raw": 1, "typed": [1.0]}, "typed contents beside raw_input_contents"),
        ({"typed": [1.0, 2.0]}, "has 2 elements in fp32_contents"),
        ({"datatype": "FP16", "typed": [1.0]}, "no typed contents"),
        ({"datatype": "FLOAT", "typed": [1.0]}, "'FLOAT' does not exist"),
        ({"shape": [-1, 3], "raw": 1}, "sizes are at least 0"),
        ({"timeout": -5}, "'timeout' is -5"),
    ],
)
def test_grpc_requests_that_are_wrong_are_named(fields: dict[str, Any], words: str) -> None:
    message = pb.ModelInferRequest()
    shape = fields.get("shape", [1, 3])
    tensor = message.inputs.add(name="x", datatype=fields.get("datatype", "FP32"), shape=shape)
    if "typed" in fields:
        tensor.contents.fp32_contents.extend(fields["typed"])
    message.raw_input_contents.extend([b"\0" * 12] * fields.get("raw", 0))
    if "timeout" in fields:
        tensor.contents.fp32_contents.extend([0.0] * 3)
        message.parameters["timeout"].int64_param = fields["timeout"]
    with pytest.raises(InvalidArgumentError) as caught:
        make_request(*read_request(message.SerializeToString()))
    assert words in str(caught.value)


def test_grpc_requests_may_say_how_long_and_how_urgent() -> None:
    message = pb.ModelInferRequest()
    message.parameters["timeout"].uint64_param = 5000
    message.parameters["priority"].uint64_param = 2
    request = make_request(*read_request(message.SerializeToString()))
    assert (request.timeout_us, request.priority) == (5000, 2)


@given(
    st.lists(st.binary(min_size=4, max_size=4), min_size=1, max_size=3),
    st.permutations(["name", "version", "id", "inputs", "outputs", "raw"]),
)
def test_grpc_requests_are_read_whatever_the_order_of_their_fields(
    raw: list[bytes], order: list[str]
) -> None:
    parts = {
        "name": pb.ModelInferRequest(model_name="m"),
        "version": pb.ModelInferRequest(model_version="3"),
        "id": pb.ModelInferRequest(id="a"),
        "inputs": pb.ModelInferRequest(),
        "outputs": pb.ModelInferRequest(),
        "raw": pb.ModelInferRequest(raw_input_contents=raw),
    }
    for number in range(len(raw)):
        parts["inputs"].inputs.add(name=f"x{number}", datatype="FP32", shape=[1])
    parts["outputs"].outputs.add(name="y")
    head, contents = read_request(b"".join(parts[name].SerializeToString() for name in order))
    request = make_request(head, contents)
    assert (head.model_name, head.model_version, request.request_id) == ("m", "3", "a")
    assert [tensor.name for tensor in request.inputs] == [f"x{n}" for n in range(len(raw))]
    assert [tensor.array.tobytes() for tensor in request.inputs] == raw
    assert [output.name for output in request.outputs] == ["y"]


@given(st.binary(max_size=40))
def test_what_is_no_message_is_said_so(body: bytes) -> None:
    try:
        make_request(*read_request(body))
    except (DecodeError, InvalidArgumentError):
        return
    pb.ModelInferRequest.FromString(body)


def test_each_grpc_answer_has_the_id_of_its_own_request() -> None:
    outputs = [Tensor("y", "FP32", np.ones((1, 2), np.float32))]
    for request_id in ("a", "", "b" * 1000):
        answer = encode_answer(Answer("m", "1", request_id, outputs))
        message = pb.ModelInferResponse.FromString(answer)
        assert (message.id, message.model_name, len(message.outputs)) == (request_id, "m", 1)


@given(st.lists(st.binary(max_size=5), max_size=4))
def test_grpc_answers_hold_bytes_elements_with_their_lengths(elements: list[bytes]) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    answer = Answer("m", "1", "", [Tensor("y", "BYTES", array)])
    message = pb.ModelInferResponse.FromString(encode_answer(answer))
    joined = b"".join(len(item).to_bytes(4, "little") + item for item in elements)
    assert message.raw_output_contents[0] == joined


def test_an_agents_server_refuses_clients() -> None:
    outcomes: list[Any] = []
    AgentsControl().load("m", outcomes.append)
    AgentsControl().unload("m", outcomes.append)
    assert [type(outcome).__name__ for outcome in outcomes] == ["UnimplementedError"] * 2


def test_metrics_have_the_names_that_dashboards_know() -> None:
    async def check(sides: Sides) -> None:
        await sides.call("POST", "/v2/models/adder/infer", request([1, 2, 3], [1, 2, 3]))
        text = metrics.expose(sides.repository).decode()
        assert 'nv_inference_request_success{model="adder",version="2"} 1.0' in text
        assert 'nv_inference_count{model="adder",version="2"} 2.0' in text
        assert 'nv_inference_pending_request_count{model="adder",version="1"} 0.0' in text
        assert "nv_inference_compute_infer_duration_us{" in text
        assert "_total" not in text

    scenario(check)
