"""The queue over HTTP: hand in, look, wait, follow."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import orjson
import structlog

from lepton_ai.errors import (
    InternalError,
    InvalidArgumentError,
    LeptonError,
    UnimplementedError,
    status_of,
)
from lepton_ai.oip.rest import JSON_LENGTH_HEADER
from lepton_ai.proto.v1 import options_pb2
from lepton_ai.proto.v1.request_pb2 import HttpContent, QueuedAnswer, QueuedRequest
from lepton_gateway.queued import records
from lepton_gateway.queued.requests import QueuedRequests, Submission
from lepton_runtime.auth import Principal, TokenVerifier

__all__ = ["SUBMIT_PATH", "QueuedApi"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.queued")
_App = Callable[[Any, Any, Any], Awaitable[None]]
_Scope = Mapping[str, Any]
_Receive = Callable[[], Awaitable[Mapping[str, Any]]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]
# As Envoy and Python both read it.
SUBMIT_PATH: Final = r"/v2/models/([^/:]+)(/versions/[0-9]+)?[/:]infer-async"
_REQUEST_PATH: Final = re.compile(r"/v2/requests/([0-9a-f]{32})(/result|/events)?")
_SIGNING_PATH: Final = "/v2/requests/webhook-secret"
_MOST_KEY_CHARACTERS: Final = 200
_MOST_WAIT_S: Final = 30.0
_KEEP_ALIVE_S: Final = 10.0
_JSON: Final = b"application/json"
_ERROR: Final = 400


class _Call(NamedTuple):
    """One request as ASGI hands it over."""

    scope: _Scope
    headers: Mapping[str, str]
    receive: _Receive
    send: _Send


class QueuedApi:
    """An ASGI application in front of another, which it leaves all else to.

    Args:
        app: Answers what has nothing to do with the queue.
        requests: What there is.
        verifier: Tells whose key it is.
        secret: A tenant's secret for webhooks.
        most_bytes: Size of a request.
    """

    def __init__(
        self,
        app: _App,
        requests: QueuedRequests,
        verifier: TokenVerifier,
        secret: Callable[[str], str],
        most_bytes: int,
    ) -> None:
        self._app = app
        self._requests = requests
        self._verifier = verifier
        self._secret = secret
        self._most_bytes = most_bytes

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        submitted = re.fullmatch(SUBMIT_PATH, scope["path"])
        asked = _REQUEST_PATH.fullmatch(scope["path"])
        if not (submitted or asked or scope["path"] == _SIGNING_PATH):
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        call = _Call(scope, headers, receive, send)
        try:
            if submitted:
                await self._submit(call, submitted[1], submitted[2] or "")
            elif asked:
                await self._tell(call, asked[1], asked[2] or "")
            else:
                caller = self._admit(call, "GET", options_pb2.ROLE_DEVELOPER)
                await _reply(send, 200, {"secret": self._secret(caller.tenant)})
        except LeptonError as error:
            await _reply_error(send, error)
        except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
            _log.exception("request_failed")
            await _reply_error(send, InternalError("the request failed"))

    def _admit(self, call: _Call, method: str, role: int) -> Principal:
        caller = self._verifier.admit(call.headers.get("authorization", ""), role)
        if call.scope["method"] != method:
            raise UnimplementedError(
                f"{call.scope['method']} is not offered here", hint=f"use {method}"
            )
        return caller

    async def _submit(self, call: _Call, model: str, version: str) -> None:
        caller = self._admit(call, "POST", options_pb2.ROLE_INFERENCE)
        headers = call.headers
        content = HttpContent(
            body=await self._body(call.receive),
            content_type=headers.get("content-type", ""),
            content_encoding=headers.get("content-encoding", ""),
            json_length=headers.get(JSON_LENGTH_HEADER, ""),
        )
        submission = Submission(
            model=model,
            path=f"/v2/models/{model}{version}/infer",
            content=content,
            webhook_url=headers.get("lepton-webhook", ""),
            idempotency_key=_key(headers),
        )
        request = await self._requests.submit(caller, submission)
        location = f"/v2/requests/{request.id}".encode()
        await _reply(call.send, 202, records.document(request, None), (b"location", location))

    async def _body(self, receive: _Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise InvalidArgumentError("the request broke off")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most_bytes:
                raise InvalidArgumentError(
                    f"a queued request has at most {self._most_bytes} bytes",
                    hint="send less at once, or ask without the queue",
                )
            if not message.get("more_body"):
                return b"".join(parts)

    async def _tell(self, call: _Call, id_: str, what: str) -> None:
        caller = self._admit(call, "GET", options_pb2.ROLE_INFERENCE)
        request = await self._requests.find(caller, id_)
        if what == "/result":
            await self._result(request, _wait_s(call.scope), call.send)
        elif what == "/events":
            await self._events(request, call.receive, call.send)
        else:
            await _reply(call.send, 200, await self._document(request))

    async def _document(self, request: QueuedRequest) -> dict[str, Any]:
        shown = records.document(request, await self._requests.answer(request))
        if request.webhook_url:
            shown["webhook"] = await self._requests.webhook(request) or "waiting"
        return shown

    async def _result(self, request: QueuedRequest, wait_s: float, send: _Send) -> None:
        answer = await self._requests.answer(request, wait_s)
        if answer is None:
            await _reply(send, 202, records.document(request, None), (b"retry-after", b"1"))
        else:
            await _send(send, answer.status, answer.content.body, _headers_of(answer))

    async def _events(self, request: QueuedRequest, receive: _Receive, send: _Send) -> None:
        """Server-sent events: that it waits, and what came of it, which ends the stream."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.create_task(_gone(receive))
        try:
            answer = await self._requests.answer(request)
            if answer is None:
                await _send_part(send, _event(records.document(request, None)))
            while answer is None and not gone.done():
                answer = await self._requests.answer(request, _KEEP_ALIVE_S)
                await _send_part(send, b": still waiting\n\n")
            if answer is not None:
                await _send_part(send, _event(records.document(request, answer)))
        except LeptonError as error:
            # The stream has begun: it ends, and the client comes back.
            _log.warning("events_broke_off", reason=str(error))
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: _Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(document: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (document["status"].encode(), orjson.dumps(document))


def _key(headers: Mapping[str, str]) -> str:
    key = headers.get("idempotency-key", "")
    if len(key) > _MOST_KEY_CHARACTERS:
        raise InvalidArgumentError(f"an idempotency key has at most {_MOST_KEY_CHARACTERS} letters")
    return key


def _wait_s(scope: _Scope) -> float:
    given = parse_qs(scope["query_string"].decode("latin-1")).get("wait_s", ["0"])[-1]
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", given):
        raise InvalidArgumentError(f"wait_s is {given!r}", hint="a number of seconds")
    return min(float(given), _MOST_WAIT_S)


def _headers_of(answer: QueuedAnswer) -> tuple[tuple[bytes, bytes], ...]:
    content = answer.content
    headers = {
        "content-type": content.content_type,
        "content-encoding": content.content_encoding,
        JSON_LENGTH_HEADER: content.json_length,
    }
    return tuple((name.encode(), value.encode()) for name, value in headers.items() if value)


async def _reply(send: _Send, status: int, document: Any, *headers: tuple[bytes, bytes]) -> None:
    await _send(send, status, orjson.dumps(document), ((b"content-type", _JSON), *headers))


async def _reply_error(send: _Send, error: LeptonError) -> None:
    status = status_of(error).http
    wait_s = error.retry_after_s
    hints = () if wait_s is None else ((b"retry-after", str(int(wait_s)).encode()),)
    await _reply(send, status, {"error": str(error)}, *hints)


async def _send(
    send: _Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def _send_part(send: _Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
