"""Queued requests and their answers as clients see them."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import orjson
from blake3 import blake3

from lepton_ai.errors import DeadlineExceededError, LeptonError, status_of
from lepton_ai.proto.v1.request_pb2 import HttpContent, QueuedAnswer, QueuedRequest

__all__ = [
    "answer_key",
    "digest_of",
    "document",
    "expired",
    "failed",
    "request_id",
    "request_key",
    "webhook_key",
]

_ERROR = 400
_JSON = "application/json"


def request_key(id_: str) -> str:
    """Where it is kept that a request was taken."""
    return f"{id_}.request"


def answer_key(id_: str) -> str:
    """Where the answer is kept."""
    return f"{id_}.answer"


def webhook_key(id_: str) -> str:
    """Where it is kept what became of the webhook."""
    return f"{id_}.webhook"


def request_id(tenant: str, idempotency_key: str) -> str:
    """The id of a new request: random, or always the same for the same idempotency key."""
    if not idempotency_key:
        return uuid.uuid4().hex
    return hashlib.sha256(f"{tenant}\0{idempotency_key}".encode()).hexdigest()[:32]


def digest_of(path: str, content: HttpContent) -> bytes:
    """Tells one request from another."""
    return blake3(path.encode() + b"\0" + content.body).digest()


def failed(request: QueuedRequest, error: LeptonError, now: float) -> QueuedAnswer:
    """The answer of a request that has none."""
    body = orjson.dumps({"error": str(error)})
    answer = QueuedAnswer(
        request=request,
        status=status_of(error).http,
        content=HttpContent(body=body, content_type=_JSON),
    )
    answer.request.ClearField("content")
    answer.finished_at.FromNanoseconds(int(now * 1e9))
    return answer


def expired(request: QueuedRequest, now: float, wait_s: float) -> QueuedAnswer | None:
    """The answer of a request that has waited too long, or None where it has not."""
    if now - request.submitted_at.ToNanoseconds() / 1e9 <= wait_s:
        return None
    error = DeadlineExceededError(
        f"the request was not answered within {wait_s:g} s", hint="submit it again"
    )
    return failed(request, error, now)


def document(request: QueuedRequest, answer: QueuedAnswer | None) -> dict[str, Any]:
    """A request as JSON tells of it.

    Args:
        request: What was asked.
        answer: What came of it; None while it waits.
    """
    shown: dict[str, Any] = {
        "id": request.id,
        "model": request.model,
        "status": "queued",
        "submitted_at": request.submitted_at.ToJsonString(),
        "result": f"/v2/requests/{request.id}/result",
    }
    if answer is not None:
        shown["status"] = "failed" if answer.status >= _ERROR else "succeeded"
        shown["finished_at"] = answer.finished_at.ToJsonString()
        shown |= _outcome(answer)
    return shown


def _outcome(answer: QueuedAnswer) -> dict[str, Any]:
    """The answer itself where it is JSON; binary tensors are fetched from the result."""
    content = answer.content
    if answer.status >= _ERROR:
        return {"error": orjson.loads(content.body)["error"]}
    if content.json_length or content.content_encoding:
        return {}
    return {"answer": orjson.loads(content.body)}
