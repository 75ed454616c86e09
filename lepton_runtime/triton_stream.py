"""Messages of `ModelStreamInfer`, which wraps each answer of `ModelInfer`, or tells its failure."""

from __future__ import annotations

import contextlib
from typing import Final

from google.protobuf.message import DecodeError

from lepton_ai.oip.messages import varint
from lepton_runtime.oip import grpc_service_pb2 as pb

__all__ = ["wrapped_answer", "wrapped_error"]

# ModelStreamInferResponse.infer_response, of which the bytes are at hand already.
_ANSWER_TAG: Final = b"\x12"
# Triton's clients can ask to be told which answer to a request is the last: it is the only one.
_LAST: Final = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()


def wrapped_answer(answer: bytes) -> bytes:
    """A ModelInferResponse as the ModelStreamInferResponse that Triton's clients expect."""
    content = answer + _LAST
    return _ANSWER_TAG + varint(len(content)) + content


def wrapped_error(request: bytes, message: str) -> bytes:
    """What became of a ModelInferRequest that failed; the stream goes on."""
    answer = pb.ModelStreamInferResponse(error_message=message)
    with contextlib.suppress(DecodeError):  # which then is the error
        asked = pb.ModelInferRequest.FromString(request)
        answer.infer_response.model_name = asked.model_name
        answer.infer_response.id = asked.id
    return answer.SerializeToString()
