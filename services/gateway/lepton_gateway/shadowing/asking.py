"""Asks one version of a deployment what another was asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import grpc

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.http import HttpAnswer, HttpClient
from lepton_ai.oip import Tensor, decode_raw
from lepton_ai.oip.messages import MODEL_INFER
from lepton_ai.oip.rest import JSON_LENGTH_HEADER, decode_answer
from lepton_ai.rpc import error_of_call
from lepton_gateway.calls.serving import Caller
from lepton_gateway.envoy.lua import MODEL_HEADER
from lepton_gateway.requests import Request
from lepton_runtime.oip import grpc_service_pb2 as pb

__all__ = ["Asking", "asked_model", "read_outputs"]

_REST: Final = re.compile(r"/v2/models/([^/]+)/infer")
_MESSAGE: Final = "application/grpc"
# Of a message: whether it is compressed, which it is not here, and its length.
_PREFIX_BYTES: Final = 5
# Neither a deadline nor a wish for compression: how soon the client wanted it is no difference.
_KEY: Final = "authorization"
_KEPT: Final = frozenset({_KEY, "content-type", "content-encoding", JSON_LENGTH_HEADER})


def asked_model(request: Request) -> str:
    """The deployment that an inference request is for; empty for any other request."""
    if request.target == MODEL_INFER:
        return dict(request.headers).get(MODEL_HEADER, "").partition("/")[0]
    found = _REST.fullmatch(request.target)
    return found[1] if found else ""


@dataclass(frozen=True)
class Asking:
    """Through Envoy, with the key that came with the request.

    Args:
        http: To Envoy.
        caller: To Envoy.
        timeout_s: For one answer.
    """

    http: HttpClient
    caller: Caller
    timeout_s: float

    async def ask(self, request: Request, version: int) -> HttpAnswer:
        """A version's answer.

        Raises:
            LeptonError: What was answered instead.
        """
        if request.target == MODEL_INFER:
            return await self._call(request, version)
        headers = {name: value for name, value in request.headers if name in _KEPT}
        path = f"{request.target.removesuffix('/infer')}/versions/{version}/infer"
        return await self.http.request(
            "POST", path, request.body, headers=headers, timeout_s=self.timeout_s
        )

    async def _call(self, request: Request, version: int) -> HttpAnswer:
        message = pb.ModelInferRequest.FromString(request.body[_PREFIX_BYTES:])
        message.model_version = str(version)
        key = tuple((name, value) for name, value in request.headers if name == _KEY)
        try:
            answer = await self.caller.call(
                MODEL_INFER, message.SerializeToString(), key, self.timeout_s
            )
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from None
        return HttpAnswer(200, {"content-type": _MESSAGE}, bytearray(answer))


def read_outputs(answer: HttpAnswer) -> list[Tensor]:
    """The tensors of an answer.

    Raises:
        InvalidArgumentError: It is none.
    """
    body = bytes(answer.body)
    if answer.headers.get("content-type") != _MESSAGE:
        length = answer.headers.get(JSON_LENGTH_HEADER)
        return decode_answer(body, int(length) if length else None).outputs
    message = pb.ModelInferResponse.FromString(body)
    if len(message.outputs) != len(message.raw_output_contents):
        raise InvalidArgumentError("the answer has no raw outputs")
    return [
        decode_raw(output.name, output.datatype, tuple(output.shape), raw)
        for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    ]
