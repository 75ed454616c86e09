"""Asking a deployed model: in parts, in order, again where that is safe, by REST or gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from lepton_ai.cluster.endpoint import AsyncEndpoint
from lepton_ai.cluster.inference import InferenceClient
from lepton_ai.cluster.retrying import pause_before_retry
from lepton_ai.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    LeptonError,
    ResourceExhaustedError,
    UnavailableError,
)
from lepton_ai.http import HttpClient
from lepton_ai.oip import Tensor
from lepton_ai.oip.rest import JSON_LENGTH_HEADER, Answer, decode_request, encode_answer
from lepton_ai.rpc import open_channel

FORM = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}


def exhausted(retry_after_s: float | None) -> LeptonError:
    error = ResourceExhaustedError("full")
    error.retry_after_s = retry_after_s
    return error


@pytest.mark.parametrize(
    ("error", "tries", "left_s", "pause_s"),
    [
        (UnavailableError("gone"), 1, 60.0, 0.1),
        (UnavailableError("gone"), 4, 60.0, 0.8),
        (UnavailableError("gone"), 6, 60.0, None),
        (UnavailableError("gone"), 4, 0.5, None),
        (exhausted(2.0), 1, 60.0, 2.0),
        (exhausted(2.0), 1, 1.0, None),
        (exhausted(None), 1, 60.0, None),  # too large, not too many
        (InternalError("the model failed"), 1, 60.0, None),
        (DeadlineExceededError("late"), 1, 60.0, None),
        (InvalidArgumentError("wrong"), 1, 60.0, None),
    ],
)
def test_only_what_may_help_is_tried_again(error, tries, left_s, pause_s):
    assert pause_before_retry(error, tries, left_s) == pytest.approx(pause_s)


class Server:
    """A model that doubles rows of two, at most four a request, over a real socket."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.timeouts_us: list[int] = []
        self.together = self.most_together = 0
        self.refusals: list[tuple[int, str]] = []
        self.delay_s = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines[1:] if line)
                body = await reader.readexactly(int(headers["content-length"]))
                writer.write(await self.answer(lines[0].split(" ")[1], headers, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        if path.endswith("/config"):
            return reply(orjson.dumps({"max_batch_size": 4}))
        if not path.endswith("/infer"):
            return reply(orjson.dumps(FORM))
        if self.refusals:
            status, more = self.refusals.pop(0)
            return reply(b'{"error": "refused"}', status, more)
        request = decode_request(body, int(headers[JSON_LENGTH_HEADER]))
        array = request.inputs[0].array
        self.rows.append(len(array))
        self.timeouts_us.append(request.timeout_us)
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        await asyncio.sleep(self.delay_s)
        self.together -= 1
        answer = Answer("m", "1", "", [Tensor("y", "FP32", array * 2)])
        content, length = encode_answer(answer, [True])
        return reply(content, 200, f"{JSON_LENGTH_HEADER}: {length}\r\n")


def reply(body: bytes, status: int = 200, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def asked(server: Server, use: Callable[[AsyncEndpoint, HttpClient], Any]) -> Any:
    async def scenario() -> Any:
        serving: set[asyncio.Task[Any]] = set()

        async def serve(*streams: Any) -> None:
            serving.add(asyncio.current_task())
            await server.serve(*streams)

        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        http = HttpClient(address, "key", max_connections=8)
        channel = open_channel(address)
        try:
            return await use(AsyncEndpoint("m", InferenceClient(http, channel)), http)
        finally:
            http.close()
            await channel.close()
            listener.close()
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    return asyncio.run(scenario())


def test_many_rows_travel_in_bounded_parts_and_keep_their_order():
    server = Server()
    server.delay_s = 0.001
    rows = np.arange(202, dtype=np.float32).reshape(101, 2)
    answer = asked(server, lambda endpoint, _: endpoint.predict(rows))
    np.testing.assert_array_equal(answer, rows * 2)
    assert sorted(server.rows) == [1] + [4] * 25
    assert server.most_together == 8


def test_the_server_is_told_the_deadline():
    server = Server()
    asked(server, lambda endpoint, _: endpoint.predict(np.zeros((1, 2)), timeout_s=7.0))
    assert 5_000_000 < server.timeouts_us[0] <= 7_000_000


def test_a_refusal_is_tried_again_when_the_server_says():
    server = Server()
    server.refusals = [(429, "retry-after: 0\r\n"), (503, "retry-after: 0\r\n"), (503, "")]
    answer = asked(server, lambda endpoint, _: endpoint.predict(np.ones((1, 2))))
    np.testing.assert_array_equal(answer, [[2, 2]])


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (429, "retry-after: 60\r\n", ResourceExhaustedError),
        (413, "", ResourceExhaustedError),
        (500, "", InternalError),
        (400, "", InvalidArgumentError),
        (504, "", DeadlineExceededError),
    ],
)
def test_the_first_failure_ends_the_call(status, headers, kind):
    server = Server()
    server.refusals = [(status, headers)]
    with pytest.raises(kind, match="refused"):
        asked(server, lambda endpoint, _: endpoint.predict(np.ones((40, 2)), timeout_s=5.0))
    assert len(server.rows) < 10


def test_too_late_is_told_as_that():
    server = Server()
    server.delay_s = 30.0
    with pytest.raises(DeadlineExceededError, match=r"within 0\.2 s"):
        asked(server, lambda endpoint, _: endpoint.predict(np.ones((1, 2)), timeout_s=0.2))


def test_grpc_carries_what_finds_no_free_connection():
    server = Server()
    server.delay_s = 0.2
    by_grpc: list[int] = []

    async def use(endpoint: AsyncEndpoint, http: HttpClient) -> Any:
        await endpoint.row_shape()

        async def stand_in(model: str, tensor: Tensor, timeout_s: float) -> Tensor:
            assert http.busy
            by_grpc.append(len(tensor.array))
            return Tensor("y", "FP32", tensor.array * 2)

        endpoint._client._by_grpc = stand_in
        return await asyncio.gather(*(endpoint.predict(np.full((1, 2), n)) for n in range(20)))

    answers = asked(server, use)
    assert [answer[0, 0] for answer in answers] == [2 * n for n in range(20)]
    assert len(server.rows) == 8
    assert len(by_grpc) == 12
