"""The protocol's REST side: paths and JSON around the service."""

from __future__ import annotations

import asyncio
import logging
import math
from functools import lru_cache, partial
from typing import Any, Final
from urllib.parse import unquote

import orjson

from lepton_ai.errors import (
    InternalError,
    InvalidArgumentError,
    LeptonError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
    status_of,
)
from lepton_ai.oip.rest import (
    JSON_LENGTH_HEADER,
    Answer,
    InferenceRequest,
    decode_request,
    encode_answer,
)
from lepton_runtime.compression import WINDOW_BITS, deflate, inflate
from lepton_runtime.headers import VERSION_HEADER
from lepton_runtime.http import JSON_TYPE, Exchange
from lepton_worker.inference.deadline import timeout_us
from lepton_worker.inference.repository import ReadyModel
from lepton_worker.inference.repository_control import RepositoryControl
from lepton_worker.inference.service import InferenceService

_log = logging.getLogger(__name__)
_BINARY_TYPE: Final = b"content-type: application/octet-stream\r\n"
_JSON_LENGTH: Final = JSON_LENGTH_HEADER.encode()
_VERSION: Final = VERSION_HEADER.encode()
# Less is not worth the time.
_COMPRESSED_BYTES: Final = 1024
_COMPRESSED_AT_ONCE_BYTES: Final = 64 * 1024
# What is longer does not exist, whole or not.
_LONGEST_PATH: Final = 1024
_REFUSED_WEIGHTS: Final = frozenset((b"q=0", b"q=0.0", b"q=0.00", b"q=0.000"))


class RestApi:
    """Answers exchanges in REST.

    Args:
        service: Does the work.
        control: Loads and unloads models on request of clients.
        max_body_bytes: What a compressed body may grow to.
    """

    def __init__(
        self, service: InferenceService, control: RepositoryControl, max_body_bytes: int
    ) -> None:
        self._service = service
        self._control = control
        self._max_body_bytes = max_body_bytes

    def handle(self, exchange: Exchange) -> None:
        """Answer, at once or later. Raises nothing: every error becomes an answer."""
        try:
            self._route(exchange, _steps(exchange.path[:_LONGEST_PATH]))
        except LeptonError as error:
            reply_error(exchange, error)
        except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
            _log.exception("a request failed")
            reply_error(exchange, InternalError("the request failed"))

    def _route(self, exchange: Exchange, path: tuple[str, ...]) -> None:
        match path:
            case ["v2", "models", name, "infer"]:
                self._infer(exchange, name, chosen_version(exchange))
            case ["v2", "models", name, "versions", version, "infer"]:
                self._infer(exchange, name, version)
            case ["v2", "repository", *rest]:
                self._repository(exchange, rest)
            case ["v2", *rest] if exchange.method in ("GET", "HEAD"):
                self._read(exchange, rest)
            case _:
                raise NotFoundError(f"{exchange.method} {exchange.path!r} does not exist")

    def _read(self, exchange: Exchange, path: list[str]) -> None:
        match path:
            case [] | [""]:
                reply_json(exchange, self._service.server_metadata())
            case ["health", "live"]:
                reply_json(exchange, {"live": True})
            case ["health", "ready"]:
                ready = self._service.ready
                reply_json(exchange, {"ready": ready}, 200 if ready else 503)
            case ["models"]:
                names = sorted({entry["name"] for entry in self._service.index()})
                reply_json(exchange, {"models": names})
            case ["models", "stats"]:
                reply_json(exchange, self._service.model_statistics())
            case ["models", name, "versions", version, *rest]:
                self._read_model(exchange, name, version, rest)
            case ["models", name, *rest]:
                self._read_model(exchange, name, chosen_version(exchange), rest)
            case _:
                raise NotFoundError(f"{exchange.path!r} does not exist")

    def _read_model(self, exchange: Exchange, name: str, version: str, path: list[str]) -> None:
        match path:
            case []:
                reply_json(exchange, self._service.model_metadata(name, version))
            case ["ready"]:
                self._service.repository.find(name, version)
                reply_json(exchange, {"name": name, "ready": True})
            case ["config"]:
                reply_json(exchange, self._service.model_config(name, version))
            case ["stats"]:
                reply_json(exchange, self._service.model_statistics(name, version))
            case _:
                raise NotFoundError(f"{exchange.path!r} does not exist")

    def _repository(self, exchange: Exchange, path: list[str]) -> None:
        match path:
            case ["index"]:
                reply_json(exchange, self._index(exchange))
            case ["models", name, "load"]:
                self._control.load(name, partial(_reply_done, exchange))
            case ["models", name, "unload"]:
                self._control.unload(name, partial(_reply_done, exchange))
            case _:
                raise NotFoundError(f"{exchange.path!r} does not exist")

    def _index(self, exchange: Exchange) -> list[dict[str, str]]:
        entries = self._service.index()
        try:
            wanted: Any = orjson.loads(exchange.body or b"{}")
        except orjson.JSONDecodeError as error:
            raise InvalidArgumentError(f"the body is not JSON: {error.msg}") from None
        if isinstance(wanted, dict) and wanted.get("ready") is True:
            return [entry for entry in entries if entry["state"] == "READY"]
        return entries

    def _infer(self, exchange: Exchange, name: str, version: str) -> None:
        if exchange.method != "POST":
            raise InvalidArgumentError(f"{exchange.method} is no way to infer", hint="use POST")
        model = self._service.admit(name, version)
        request = self._decode(exchange, model)
        finish = partial(_reply_answer, exchange, request)
        limit_us = timeout_us(exchange.headers, request.timeout_us)
        self._service.infer(model, request, limit_us, exchange, finish)

    def _decode(self, exchange: Exchange, model: ReadyModel) -> InferenceRequest:
        body = self._plain_body(exchange)
        json_length = _json_length(exchange)
        if json_length == 0:
            return InferenceRequest([model.signature.raw_tensor(body)], [], binary=True)
        return decode_request(body, json_length)

    def _plain_body(self, exchange: Exchange) -> bytes:
        encoding = exchange.headers.get(b"content-encoding", b"identity").lower()
        if encoding == b"identity":
            return exchange.body
        if encoding not in WINDOW_BITS:
            raise InvalidArgumentError(
                f"content-encoding {encoding.decode('latin-1')!r} is not known",
                hint=f"allowed are {', '.join(name.decode() for name in WINDOW_BITS)}",
            )
        return inflate(exchange.body, WINDOW_BITS[encoding], self._max_body_bytes)


@lru_cache(1024)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(unquote(path).split("/")[1:])


def chosen_version(exchange: Exchange) -> str:
    """The version that the gateway chose for a request that names none; empty for the latest."""
    return exchange.headers.get(_VERSION, b"").decode("latin-1")


def reply_json(exchange: Exchange, document: Any, status: int = 200) -> None:
    """Answer with a document."""
    exchange.reply(status, JSON_TYPE, orjson.dumps(document))


def reply_error(exchange: Exchange, error: LeptonError) -> None:
    """Answer with an error, and when to come back if that helps."""
    headers = JSON_TYPE
    if isinstance(error, ResourceExhaustedError | UnavailableError):
        headers += b"retry-after: %d\r\n" % max(1, math.ceil(error.retry_after_s or 0))
    exchange.reply(status_of(error).http, headers, orjson.dumps({"error": str(error)}))


def _reply_done(exchange: Exchange, error: LeptonError | None) -> None:
    if error is None:
        exchange.reply(200, JSON_TYPE, b"{}")
    else:
        reply_error(exchange, error)


def _reply_answer(
    exchange: Exchange, request: InferenceRequest, answer: Answer | LeptonError
) -> None:
    if isinstance(answer, LeptonError):
        reply_error(exchange, answer)
        return
    try:
        body, json_length = encode_answer(answer, _binary_flags(request, len(answer.outputs)))
    except LeptonError as error:
        reply_error(exchange, error)
        return
    headers = JSON_TYPE
    if json_length is not None:
        headers = b"%b%b: %d\r\n" % (_BINARY_TYPE, _JSON_LENGTH, json_length)
    accepted = exchange.headers.get(b"accept-encoding")
    encoding = accepted and answer_encoding(accepted, len(body), json_length is not None)
    if encoding:
        _reply_compressed(exchange, headers, body, encoding)
    else:
        exchange.reply(200, headers, body)


def answer_encoding(accepted: bytes, size: int, binary: bool) -> bytes:
    """How an answer is compressed; empty for not at all.

    Numbers in binary hardly shrink, and HTTP libraries accept compression by habit: only a client
    that accepts one encoding and no other has asked for it.

    Args:
        accepted: The header ``Accept-Encoding``.
        size: Bytes of the answer.
        binary: Whether the answer holds binary tensors.
    """
    if size < _COMPRESSED_BYTES:
        return b""
    names = [
        name.strip().lower()
        for name, _, weight in (entry.partition(b";") for entry in accepted.split(b","))
        if weight.replace(b" ", b"") not in _REFUSED_WEIGHTS
    ]
    if binary and len(names) > 1:
        return b""
    return next((name for name in WINDOW_BITS if name in names), b"")


def _reply_compressed(
    exchange: Exchange, headers: bytes, body: bytes | memoryview, encoding: bytes
) -> None:
    headers += b"content-encoding: %b\r\nvary: accept-encoding\r\n" % encoding
    work = partial(deflate, body, WINDOW_BITS[encoding])
    if len(body) <= _COMPRESSED_AT_ONCE_BYTES:
        exchange.reply(200, headers, work())
        return
    # Compressing more would keep all other requests waiting.
    future = asyncio.get_running_loop().run_in_executor(None, work)
    future.add_done_callback(lambda done: exchange.reply(200, headers, done.result()))


def _binary_flags(request: InferenceRequest, count: int) -> list[bool]:
    wanted = request.outputs
    return [output.binary for output in wanted] if wanted else [request.binary] * count


def _json_length(exchange: Exchange) -> int | None:
    text = exchange.headers.get(_JSON_LENGTH)
    if text is None:
        return None
    if not text.isdigit():
        raise InvalidArgumentError(f"{JSON_LENGTH_HEADER} is not a whole number")
    return int(text)
