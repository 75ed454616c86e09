"""The gateway's own pages: the cluster's description and what no replica can answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import orjson
import structlog

from lepton_ai.errors import (
    InternalError,
    LeptonError,
    NotFoundError,
    UnimplementedError,
    status_of,
)
from lepton_gateway.protocol import (
    model_names,
    repository_index,
    server_metadata,
    why_not,
)
from lepton_gateway.requests import Receive, Request, Scope, Send, read_request
from lepton_gateway.resending import Response
from lepton_gateway.table import RouteTable
from lepton_gateway.waking import WOKEN_HEADER, Waking

__all__ = ["App", "Resend"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.gateway")
_JSON = b"application/json"
Resend = Callable[[Request, float], Awaitable[Response | None]]
"""Sends a request on, within so many seconds; None where no replica could be reached."""


@dataclass(frozen=True)
class _Answer:
    status: int
    content_type: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class App:
    """An ASGI application behind Envoy.

    Args:
        table: Answers the table of the moment.
        waking: Holds requests for models that sleep.
        resend: Sends them on once they are awake.
        openapi: The description of the REST interface.
        version: Of this software.
    """

    def __init__(
        self,
        table: Callable[[], RouteTable],
        waking: Waking,
        resend: Resend,
        openapi: Mapping[str, Any],
        version: str,
    ) -> None:
        self._table = table
        self._waking = waking
        self._resend = resend
        self._openapi = orjson.dumps(openapi)
        self._docs = (files("lepton_gateway") / "docs.html").read_bytes()
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Only for a sleeping model its body is of interest."""
        name = _model(scope)
        if name and self._waking.is_asleep(name):
            answer = await self._wake(name, scope, receive)
        else:
            answer = self._answer(scope)
        headers = [(b"content-type", answer.content_type), *answer.headers]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _wake(self, name: str, scope: Scope, receive: Receive) -> _Answer:
        path = [part for part in scope["path"].split("/") if part]
        if path[-1] == "ready":
            return _json({"name": name, "ready": True})
        try:
            if _header(scope, WOKEN_HEADER):
                raise why_not(self._table(), name)
            request = await read_request(scope, receive)
            found = await self._waking.answer(name, partial(self._resend, request))
        except LeptonError as error:
            return _error(error)
        except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
            _log.exception("request_failed")
            return _error(InternalError("the request failed"))
        headers = [(name.encode(), value.encode("latin-1")) for name, value in found.headers]
        types = [value for name, value in headers if name == b"content-type"]
        others = tuple(header for header in headers if header[0] != b"content-type")
        return _Answer(found.status, types[0] if types else _JSON, found.body, others)

    def _answer(self, scope: Scope) -> _Answer:
        path = [part for part in scope["path"].split("/") if part]
        try:
            return self._route(scope, path)
        except LeptonError as error:
            return _error(error)
        except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
            _log.exception("request_failed")
            return _error(InternalError("the request failed"))

    def _route(self, scope: Scope, path: list[str]) -> _Answer:
        table = self._table()
        match path:
            case ["docs"]:
                return _Answer(200, b"text/html; charset=utf-8", self._docs)
            case ["openapi.json"]:
                return _Answer(200, _JSON, self._openapi)
            case ["v2", *rest]:
                return _json(self._protocol(table, rest, scope["path"]))
            case _:
                raise _no_such(scope["path"])

    def _protocol(self, table: RouteTable, path: list[str], whole: str) -> Any:
        match path:
            case []:
                return server_metadata(self._version)
            case ["health", "live"]:
                return {"live": True}
            case ["health", "ready"]:
                return {"ready": True}
            case ["models"]:
                return {"models": model_names(table)}
            case ["models", model, *_]:
                raise why_not(table, model)
            case ["repository", "index"]:
                return repository_index(table)
            case ["repository", "models", *_]:
                raise UnimplementedError(
                    "a cluster loads no models by request", hint="apply or delete a deployment"
                )
            case _:
                raise _no_such(whole)


def _model(scope: Scope) -> str:
    """The model that a request names; empty for none."""
    match [part for part in scope["path"].split("/") if part]:
        case ["v2", "models", name, *_]:
            return name
        case _:
            return ""


def _header(scope: Scope, name: str) -> str:
    return dict(scope["headers"]).get(name.encode(), b"").decode("latin-1")


def _no_such(path: str) -> NotFoundError:
    return NotFoundError(f"{path!r} is not offered", hint="see /docs")


def _json(document: Any) -> _Answer:
    return _Answer(200, _JSON, orjson.dumps(document))


def _error(error: LeptonError) -> _Answer:
    return _Answer(status_of(error).http, _JSON, orjson.dumps({"error": str(error)}))
