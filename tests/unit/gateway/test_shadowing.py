"""What is mirrored: when two answers agree, and what is counted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from lepton_ai.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    LeptonError,
    ResourceExhaustedError,
)
from lepton_ai.http import HttpAnswer
from lepton_ai.oip import Tensor
from lepton_gateway.requests import Request
from lepton_gateway.shadowing.app import Shadowing, Tally
from lepton_gateway.shadowing.asking import Asking, asked_model, read_outputs
from lepton_gateway.shadowing.comparison import Agreement, compared
from lepton_gateway.table import RoutedDeployment, RouteTable, Shadow
from lepton_runtime.clock import SystemClock
from lepton_runtime.oip import grpc_service_pb2 as pb

TABLE = RouteTable((RoutedDeployment("m", "READY", shadow=Shadow(2, 1, 10, 0.01)),))
GRPC = "/inference.GRPCInferenceService/ModelInfer"


def tensor(values: Any, datatype: str = "FP32", name: str = "y") -> Tensor:
    kinds = {"INT64": np.int64, "BYTES": object, "BF16": np.uint16, "BOOL": np.bool_}
    return Tensor(name, datatype, np.array(values, kinds.get(datatype, np.float32)))


@pytest.mark.parametrize(
    ("old", "new", "agreement"),
    [
        # Probabilities: the likeliest class.
        (tensor([[0.1, 0.9], [0.6, 0.4]]), tensor([[0.4, 0.6], [0.4, 0.6]]), (2, 1)),
        # Other fractions: by no more than a hundredth, or a hundredth part.
        (tensor([[1.0], [200.0], [0.0]]), tensor([[1.009], [201.9], [0.011]]), (3, 2)),
        (tensor([[3.0, 2.0]]), tensor([[9.0, 2.0]]), (1, 0)),
        (tensor([[np.nan], [np.inf], [-np.inf]]), tensor([[np.nan], [np.inf], [np.inf]]), (3, 2)),
        (tensor([[0x3F80], [0x4000]], "BF16"), tensor([[0x3F80], [0x4040]], "BF16"), (2, 1)),
        # Whole numbers, texts and truth values: equal.
        (tensor([7, 8], "INT64"), tensor([7, 9], "INT64"), (2, 1)),
        (tensor([b"cat", b"dog"], "BYTES"), tensor([b"cat", b"cat"], "BYTES"), (2, 1)),
        (tensor([True, False], "BOOL"), tensor([True, True], "BOOL"), (2, 1)),
        # What cannot be compared does not agree.
        (tensor([[1.0]]), tensor([[1.0, 1.0]]), (1, 0)),
        (tensor([1.0, 2.0]), tensor([1, 2], "INT64"), (2, 0)),
        (tensor([1.0, 2.0]), tensor([1.0, 2.0], name="z"), (2, 0)),
        (tensor(1.0), tensor(1.0), (1, 1)),
        (tensor(np.zeros((0, 3))), tensor(np.zeros((0, 3))), (0, 0)),
    ],
)
def test_when_answers_agree(old: Tensor, new: Tensor, agreement: tuple[int, int]) -> None:
    assert compared([old], [new], 0.01) == Agreement(*agreement)


def test_a_row_agrees_if_all_its_outputs_do() -> None:
    old = [tensor([1.0, 2.0, 3.0]), tensor([1, 2, 3], "INT64", "k")]
    new = [tensor([1, 2, 4], "INT64", "k"), tensor([1.0, 5.0, 3.0])]
    assert compared(old, new, 0.01) == Agreement(3, 1)
    # Without rows in common it is all or nothing.
    assert compared([*old, tensor([1.0], name="l")], [*new, tensor([1.0], name="l")], 0) == (1, 0)


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("/v2/models/m/infer", "m"),
        ("/v2/models/m/ready", ""),
        ("/v2/models/m/versions/1/infer", ""),
        (GRPC, "g"),
        ("/inference.GRPCInferenceService/ModelReady", ""),
    ],
)
def test_only_inference_is_compared(target: str, model: str) -> None:
    assert asked_model(Request("POST", target, [("lepton-model", "g/")], b"")) == model


def rest(values: list[list[float]]) -> HttpAnswer:
    output = {"name": "y", "datatype": "FP32", "shape": [len(values), 1], "data": values}
    body = json.dumps({"model_name": "m", "outputs": [output]})
    return HttpAnswer(200, {"content-type": "application/json"}, bytearray(body.encode()))


def test_answers_are_read_whatever_the_client_speaks() -> None:
    message = pb.ModelInferResponse(raw_output_contents=[np.float32(3).tobytes()])
    message.outputs.add(name="y", datatype="FP32", shape=[1, 1])
    kind = {"content-type": "application/grpc"}
    grpc = HttpAnswer(200, kind, bytearray(message.SerializeToString()))
    for answer in (grpc, rest([[3.0]])):
        [output] = read_outputs(answer)
        assert (output.name, output.array.tolist()) == ("y", [[3.0]])


class Recorded:
    """Stands in for the clients of Envoy."""

    def __init__(self) -> None:
        self.path = ""
        self.headers: dict[str, str] = {}

    async def request(self, _: str, path: str, __: bytes, **more: Any) -> HttpAnswer:
        self.path, self.headers = path, more["headers"]
        return rest([[1.0]])

    async def call(self, method: str, message: bytes, metadata: Any, _: float) -> bytes:
        self.path, self.headers = method, dict(metadata)
        self.message = pb.ModelInferRequest.FromString(message)
        return b""


def test_a_version_is_asked_as_the_client_asked_without_its_deadline() -> None:
    http: Any = Recorded()
    headers = [("authorization", "Bearer k"), ("timeout", "1"), ("lepton-model", "m/")]
    asking = Asking(http, http, 1.0)
    asyncio.run(asking.ask(Request("POST", "/v2/models/m/infer", headers, b""), 2))
    assert http.path == "/v2/models/m/versions/2/infer"
    assert http.headers == {"authorization": "Bearer k"}
    message = pb.ModelInferRequest(model_name="m", id="7").SerializeToString()
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    asyncio.run(asking.ask(Request("POST", GRPC, headers, framed), 2))
    assert http.path == GRPC
    assert http.headers == {"authorization": "Bearer k"}
    assert http.message == pb.ModelInferRequest(model_name="m", model_version="2", id="7")


class Clock(SystemClock):
    async def sleep(self, seconds: float) -> None:
        """Time that passes at once."""


def mirrored(outcomes: dict[int, HttpAnswer | LeptonError], path: str = "m") -> Tally | None:
    async def ask(_: Request, version: int) -> HttpAnswer:
        outcome = outcomes[version]
        if isinstance(outcome, LeptonError):
            raise outcome
        return outcome

    async def receive() -> dict[str, Any]:
        return {"body": b"{}"}

    async def send(_: dict[str, Any]) -> None:
        sent.append(1)

    sent: list[int] = []
    app = Shadowing(lambda: TABLE, ask, Clock())
    target = f"/v2/models/{path}/infer".encode()
    scope = {"method": "POST", "raw_path": target, "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))
    assert len(sent) == 2, "Envoy waits"
    found = app.take()
    assert not app.take()
    return found.get(("m", 2))


def test_what_is_mirrored_is_counted() -> None:
    both = rest([[1.0], [2.0]])
    assert mirrored({1: both, 2: rest([[1.0], [3.0]])}) == Tally(rows=2, agreed=1)
    late = DeadlineExceededError("late")
    assert mirrored({1: both, 2: late}) == Tally(rows=2, unanswered=2)
    busy = ResourceExhaustedError("busy")
    assert mirrored({1: both, 2: busy}) == Tally(dropped=1)
    assert mirrored({1: busy, 2: both}) == Tally(dropped=1)
    # The client's own mistake says nothing of a version.
    assert mirrored({1: InvalidArgumentError("no"), 2: both}) == Tally()
    assert mirrored({}, "other") is None
