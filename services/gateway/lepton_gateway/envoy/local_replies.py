"""What Envoy says when it answers by itself."""

from __future__ import annotations

from typing import Any

__all__ = ["local_reply_config"]

# HTTP status -> what is said, and the code of google.rpc.Code where gRPC's own choice differs.
_SAID = "%LOCAL_REPLY_BODY%"
_REPLIES: dict[int, tuple[str, int | None]] = {
    401: (f"a key is needed: send 'authorization: Bearer KEY' ({_SAID})", None),
    403: ("the key is not allowed here: it was revoked, or is not of this cluster", None),
    404: ("nothing is offered under this path: see /docs", 12),
    413: ("the request is too large", 8),
    429: ("too many requests at once: try again", 8),
    501: (_SAID, 12),
    503: ("nothing that could answer is reachable now: try again", 14),
    504: ("no answer came in time", 4),
}
_GRPC_STATUS = "grpc-status"


def local_reply_config() -> dict[str, Any]:
    """Answers `{"error": …}` to HTTP clients and status and text to gRPC clients."""
    mappers: list[dict[str, Any]] = []
    for status, (text, grpc_code) in _REPLIES.items():
        mappers.append(_grpc_mapper(status, text, grpc_code))
        mappers.append({"filter": _has_status(status), "body_format_override": _json_format(text)})
    return {"mappers": mappers, "body_format": _json_format(_SAID)}


def _grpc_mapper(status: int, text: str, grpc_code: int | None) -> dict[str, Any]:
    mapper: dict[str, Any] = {
        "filter": {"and_filter": {"filters": [_has_status(status), *_from_grpc_client()]}},
        "body_format_override": {"text_format_source": {"inline_string": text}},
    }
    if grpc_code is not None:
        header = {"key": _GRPC_STATUS, "value": str(grpc_code)}
        mapper["headers_to_add"] = [
            {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ]
    return mapper


def _json_format(text: str) -> dict[str, Any]:
    return {"json_format": {"error": text}, "content_type": "application/json"}


def _has_status(status: int) -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": f"lepton.local_reply.{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _from_grpc_client() -> list[dict[str, Any]]:
    """A REST call is gRPC too once it is transcoded, but then its path is another."""
    grpc_content = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    transcoded = {"name": "x-envoy-original-path", "present_match": True, "invert_match": True}
    return [{"header_filter": {"header": match}} for match in (grpc_content, transcoded)]
