"""One request to a deployed model, by whichever way costs least now."""

from __future__ import annotations

from urllib.parse import quote

import grpc

from lepton_ai.errors import ResourceExhaustedError
from lepton_ai.http import HttpClient
from lepton_ai.oip import Tensor
from lepton_ai.oip.messages import MODEL_INFER, decode_infer_answer, encode_infer_request
from lepton_ai.oip.rest import JSON_LENGTH_HEADER, decode_answer, encode_request
from lepton_ai.rpc import translated_errors

__all__ = ["InferenceClient", "encoded"]

# gRPC copies a message several times: what is larger waits for a connection instead.
_MOST_BY_GRPC_BYTES = 1024 * 1024
_REFUSED_PAUSE_S = 0.1


class InferenceClient:
    """Asks models.

    A request travels as binary REST, which costs the least. While all connections for that are
    busy, further requests of up to 1 MiB travel by gRPC, which carries any number of them on the
    one connection that the cluster has anyway.

    Args:
        http: For REST.
        channel: For gRPC.
    """

    def __init__(self, http: HttpClient, channel: grpc.aio.Channel) -> None:
        self.http = http
        self._infer = channel.unary_unary(MODEL_INFER)

    async def ask(self, model: str, tensor: Tensor, timeout_s: float) -> Tensor:
        """The model's first output. The server is told the deadline and computes nothing after it.

        Raises:
            LeptonError: What the server answered instead, or that it cannot be reached.
        """
        if self.http.busy and tensor.array.nbytes <= _MOST_BY_GRPC_BYTES:
            return await self._by_grpc(model, tensor, timeout_s)
        return await self._by_rest(model, tensor, timeout_s)

    async def _by_rest(self, model: str, tensor: Tensor, timeout_s: float) -> Tensor:
        body, headers = encoded(tensor, timeout=int(timeout_s * 1e6))
        path = f"/v2/models/{quote(model, safe='')}/infer"
        answer = await self.http.request("POST", path, body, headers=headers, timeout_s=timeout_s)
        length = answer.headers.get(JSON_LENGTH_HEADER)
        return decode_answer(bytes(answer.body), int(length) if length else None).outputs[0]

    async def _by_grpc(self, model: str, tensor: Tensor, timeout_s: float) -> Tensor:
        request = encode_infer_request(model, tensor)
        try:
            async with translated_errors():
                return decode_infer_answer(await self._infer(request, timeout=timeout_s))
        except ResourceExhaustedError as error:
            # Only REST says when to come back.
            error.retry_after_s = _REFUSED_PAUSE_S
            raise


def encoded(tensor: Tensor, **parameters: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request in binary REST.

    Args:
        tensor: The model's input.
        parameters: Of the request, such as its ``timeout`` in microseconds.
    """
    body, json_length = encode_request([tensor], parameters=parameters)
    kind = "application/octet-stream"
    return body, {JSON_LENGTH_HEADER: str(json_length), "content-type": kind}
