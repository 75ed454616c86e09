"""Calls of gRPC that stream: inference as Triton's clients stream it, and reflection."""

from __future__ import annotations

import contextlib
from typing import Final

from google.protobuf.message import DecodeError

from lepton_runtime.http2.streams import Streaming
from lepton_runtime.oip import grpc_service_pb2 as pb
from lepton_worker.inference import grpc_api

__all__ = ["REFLECTION", "streaming", "wrapped_answer", "wrapped_error"]

REFLECTION: Final = "/grpc.reflection."
_REFLECTION_METHODS: Final = tuple(
    f"{REFLECTION}{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
)
_REFLECTION_BYTES: Final = 64 * 1024
# ModelStreamInferResponse.infer_response, of which the bytes are at hand already.
_ANSWER_TAG: Final = b"\x12"
# Triton's clients can ask to be told which answer to a request is the last: it is the only one.
_LAST: Final = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()


def streaming(max_message_bytes: int) -> dict[str, Streaming]:
    """What the inference server streams, by path.

    Args:
        max_message_bytes: Of one message, decompressed.
    """
    inference = Streaming(
        f"{grpc_api.PREFIX}ModelInfer", max_message_bytes, wrapped_answer, wrapped_error
    )
    calls = {f"{grpc_api.PREFIX}ModelStreamInfer": inference}
    for path in _REFLECTION_METHODS:
        calls[path] = Streaming(path, _REFLECTION_BYTES, bytes, None)
    return calls


def wrapped_answer(answer: bytes) -> bytes:
    """A ModelInferResponse as the ModelStreamInferResponse that Triton's clients expect."""
    content = answer + _LAST
    return _ANSWER_TAG + _varint(len(content)) + content


def wrapped_error(request: bytes, code: int, message: str) -> bytes:
    """A failed ModelInferRequest as the message that says so; the stream goes on."""
    answer = pb.ModelStreamInferResponse(error_message=message or f"the call failed with {code}")
    with contextlib.suppress(DecodeError):  # which then is the error
        asked = pb.ModelInferRequest.FromString(request)
        answer.infer_response.model_name = asked.model_name
        answer.infer_response.id = asked.id
    return answer.SerializeToString()


def _varint(value: int) -> bytes:
    """A number as https://protobuf.dev/programming-guides/encoding lays down."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
