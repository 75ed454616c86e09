"""The data plane of a storage node: chunks and manifests over HTTP/1.1.

| request | who | what |
|---|---|---|
| ``PUT /data/chunks/HASH`` | developers | keeps a chunk with its copies (``lepton-copies``) |
| ``PUT /data/chunks`` | services | `KeepChunksRequest`: keeps all of them here, or none |
| ``GET /data/chunks/HASH`` | viewers | a chunk or, with ``range``, a part of it |
| ``POST /data/objects`` | developers | `CommitObjectRequest`: names chunks as an object |
| ``GET /data/objects/ID`` | viewers | `ObjectPlaces`: the manifest, and where its nodes are |

With ``lepton-here``, which takes a service's key, a chunk is read on this very node, or kept there
for ``lepton-tenant``.
"""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import orjson
import structlog
from google.protobuf.message import DecodeError, Message

from lepton_ai.chunking import CHUNK_BYTES
from lepton_ai.errors import (
    DataCorruptError,
    InternalError,
    InvalidArgumentError,
    LeptonError,
    NotFoundError,
    status_of,
)
from lepton_ai.names import check_name
from lepton_ai.proto.v1 import options_pb2
from lepton_ai.proto.v1.storage_pb2 import CommitObjectRequest, KeepChunksRequest
from lepton_runtime.auth import Principal, TokenVerifier
from lepton_runtime.http import JSON_TYPE, Exchange, HttpLimits
from lepton_storage.chunks import Chunks, Write
from lepton_storage.store import ObjectStore

__all__ = ["LIMITS", "DataApi"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.data")
# A chunk, or a request to commit: its content is at most a chunk too.
LIMITS = HttpLimits(
    head_bytes=16 * 1024,
    body_bytes=CHUNK_BYTES + 64 * 1024,
    buffered_bytes=128 * 1024 * 1024,
)
_BYTES = b"content-type: application/octet-stream\r\n"
_MESSAGE = b"content-type: application/x-protobuf\r\n"
_HEX = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes=(\d{1,8})-(\d{1,8})")
_Message = TypeVar("_Message", bound=Message)
_Answer = tuple[int, bytes, bytes | memoryview]


class DataApi:
    """Answers exchanges.

    Args:
        store: Objects of the cluster.
        chunks: Chunks of this node.
        verifier: Checks the keys of requests.
    """

    def __init__(self, store: ObjectStore, chunks: Chunks, verifier: TokenVerifier) -> None:
        self._store = store
        self._chunks = chunks
        self._verifier = verifier
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answer soon."""
        task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            exchange.reply(*await self._routed(exchange))
        except LeptonError as error:
            exchange.reply(*_told(error))
        except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
            _log.exception("request_failed", path=exchange.path)
            exchange.reply(*_told(InternalError("something went wrong inside")))

    async def _routed(self, exchange: Exchange) -> _Answer:
        match (exchange.method, exchange.path.split("/")):
            case ("PUT", ["", "data", "chunks", name]):
                return await self._put(exchange, _chunk_hash(name))
            case ("PUT", ["", "data", "chunks"]):
                return await self._put_all(exchange)
            case ("GET", ["", "data", "chunks", name]):
                return await self._get(exchange, _chunk_hash(name))
            case ("POST", ["", "data", "objects"]):
                return await self._commit(exchange)
            case ("GET", ["", "data", "objects", wanted]):
                self._admit(exchange, options_pb2.ROLE_VIEWER)
                places = await self._store.places(wanted)
                return 200, _MESSAGE, places.SerializeToString()
            case _:
                raise NotFoundError(f"{exchange.method} {exchange.path[:80]!r} is not offered")

    async def _put(self, exchange: Exchange, chunk_hash: bytes) -> _Answer:
        here = b"lepton-here" in exchange.headers
        role = options_pb2.ROLE_SERVICE if here else options_pb2.ROLE_DEVELOPER
        caller = self._admit(exchange, role)
        if not 0 < len(exchange.body) <= CHUNK_BYTES:
            raise InvalidArgumentError(
                f"a chunk of {len(exchange.body)} bytes", hint=f"1 to {CHUNK_BYTES}"
            )
        if here:
            await self._chunks.write(chunk_hash, exchange.body, _tenant(exchange))
            return 200, _MESSAGE, b""
        copies = _number(exchange, b"lepton-copies")
        chunk = await self._store.keep(chunk_hash, exchange.body, caller.tenant, copies)
        return 200, _MESSAGE, chunk.SerializeToString()

    async def _put_all(self, exchange: Exchange) -> _Answer:
        self._admit(exchange, options_pb2.ROLE_SERVICE)
        request = _parsed(KeepChunksRequest, exchange.body)
        writes = [
            Write(chunk.hash, chunk.data, check_name("tenant", chunk.tenant))
            for chunk in request.chunks
        ]
        await self._chunks.write_all(writes)
        return 200, _MESSAGE, b""

    async def _get(self, exchange: Exchange, chunk_hash: bytes) -> _Answer:
        here = b"lepton-here" in exchange.headers
        self._admit(exchange, options_pb2.ROLE_SERVICE if here else options_pb2.ROLE_VIEWER)
        data = await (self._read_here(chunk_hash) if here else self._store.chunk(chunk_hash))
        if asked := exchange.headers.get(b"range"):
            return 206, _BYTES, data[_range(asked, len(data))]
        return 200, _BYTES, data

    async def _read_here(self, chunk_hash: bytes) -> memoryview:
        try:
            return await self._chunks.read(chunk_hash)
        except DataCorruptError:
            # It is in quarantine now and healing fetches another: here it does not exist.
            raise NotFoundError("the chunk is not on this node") from None

    async def _commit(self, exchange: Exchange) -> _Answer:
        caller = self._admit(exchange, options_pb2.ROLE_DEVELOPER)
        request = _parsed(CommitObjectRequest, exchange.body)
        answer = await self._store.commit(request, caller.tenant)
        return 200, _MESSAGE, answer.SerializeToString()

    def _admit(self, exchange: Exchange, role: int) -> Principal:
        authorization = exchange.headers.get(b"authorization", b"").decode("latin-1")
        return self._verifier.admit(authorization, role)


def _parsed(kind: type[_Message], body: bytes) -> _Message:
    try:
        return kind.FromString(body)
    except DecodeError:
        raise InvalidArgumentError(f"the body is no {kind.__name__}") from None


def _chunk_hash(name: str) -> bytes:
    if not _HEX.fullmatch(name):
        raise InvalidArgumentError(
            f"{name[:80]!r} is not a chunk's name", hint="64 hexadecimal digits"
        )
    return bytes.fromhex(name)


def _number(exchange: Exchange, header: bytes) -> int:
    text = exchange.headers.get(header, b"0")
    if not re.fullmatch(rb"\d", text):
        raise InvalidArgumentError(f"{header.decode()} is {text[:20]!r}", hint="one digit")
    return int(text)


def _tenant(exchange: Exchange) -> str:
    name = exchange.headers.get(b"lepton-tenant", b"").decode("latin-1")
    return check_name("tenant", name)


def _range(text: bytes, size: int) -> slice:
    found = _RANGE.fullmatch(text.decode("latin-1"))
    if found is None or not int(found[1]) <= int(found[2]) < size:
        raise InvalidArgumentError(
            f"range {text[:40]!r} is not in the chunk", hint=f"bytes=FIRST-LAST below {size}"
        )
    return slice(int(found[1]), int(found[2]) + 1)


def _told(error: LeptonError) -> _Answer:
    form = {"error": error.message, "hint": error.hint, "reason": type(error).__name__}
    return status_of(error).http, JSON_TYPE, orjson.dumps(form)
