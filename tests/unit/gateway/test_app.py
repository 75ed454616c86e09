from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lepton_gateway.app import App
from lepton_gateway.table import Replica, RoutedDeployment, RouteTable
from lepton_gateway.waking import Waking
from lepton_runtime.clock import ManualClock

TABLE = RouteTable((RoutedDeployment("mnist", "READY", "", (Replica("a:1", 2),)),))


def ask(path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    async def scenario() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            raise AssertionError("no page reads a body")

        async def resend(_: Any, __: float) -> None:
            raise AssertionError("nothing sleeps")

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        scope = {"type": "http", "path": path, "headers": raw}
        waking = Waking(lambda: TABLE, ManualClock(), 1.0, 0, lambda: None)
        app = App(lambda: TABLE, waking, resend, {"openapi": "3.1.0"}, "1.2")
        await app(scope, receive, send)
        return sent

    start, body = asyncio.run(scenario())
    named = {name.decode(): text.decode() for name, text in start["headers"]}
    assert int(named["content-length"]) == len(body["body"])
    return start["status"], named, body["body"]


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models", {"models": ["mnist"]}),
        ("/openapi.json", {"openapi": "3.1.0"}),
    ],
)
def test_pages(path: str, document: Any) -> None:
    status, _, body = ask(path)
    assert (status, json.loads(body)) == (200, document)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v2/models/mnits/infer", 404, "did you mean 'mnist'?"),
        ("/v2/repository/models/mnist/load", 501, "deployment"),
        ("/v1/jbos", 404, "'/v1/jbos' is not offered"),
        ("/v2/other", 404, "'/v2/other' is not offered"),
    ],
)
def test_errors_have_a_text(path: str, status: int, text: str) -> None:
    answered, headers, body = ask(path)
    assert (answered, headers["content-type"]) == (status, "application/json")
    assert text in json.loads(body)["error"]
