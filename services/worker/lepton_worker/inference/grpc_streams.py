"""Calls of gRPC that stream: inference as Triton's clients stream it, and reflection."""

from __future__ import annotations

from typing import Final

from lepton_ai.oip.messages import INFERENCE_SERVICE, MODEL_INFER
from lepton_runtime.http2.streams import Streaming
from lepton_runtime.triton_stream import wrapped_answer, wrapped_error

__all__ = ["REFLECTION", "streaming"]

REFLECTION: Final = "/grpc.reflection."
_REFLECTION_METHODS: Final = tuple(
    f"{REFLECTION}{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
)
_REFLECTION_BYTES: Final = 64 * 1024


def streaming(max_message_bytes: int) -> dict[str, Streaming]:
    """What the inference server streams, by path.

    Args:
        max_message_bytes: Of one message, decompressed.
    """
    inference = Streaming(MODEL_INFER, max_message_bytes, wrapped_answer, wrapped_error)
    calls = {f"{INFERENCE_SERVICE}ModelStreamInfer": inference}
    for path in _REFLECTION_METHODS:
        calls[path] = Streaming(path, _REFLECTION_BYTES, bytes, None)
    return calls
