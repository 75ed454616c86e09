"""Streams, compressed messages and reflection, which Envoy cannot route by what is in a message.

Envoy sends these calls here, and here every message of them becomes one plain unary call to Envoy
again. So each is routed, balanced, tried again and refused like any other, and the inference
servers of a cluster never see a stream.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

from lepton_ai.oip.messages import INFERENCE_SERVICE, MODEL_INFER
from lepton_gateway.calls.serving import Caller, Context, details, left_s, repeated
from lepton_runtime.triton_stream import wrapped_answer, wrapped_error

__all__ = ["Relay", "relayed_matches"]

_STREAM: Final = f"{INFERENCE_SERVICE}ModelStreamInfer"
_REFLECTION: Final = "/grpc.reflection."
_EOF: Final = vars(grpc.aio)["EOF"]  # out of a type checker's sight
# Requests of one stream that are under way, so that they can share a batch.
_IN_FLIGHT: Final = 32


class Relay(grpc.GenericRpcHandler):
    """Repeats what it is asked, one message a call.

    Args:
        caller: Makes the calls.
        timeout_s: What one of them may take, when the client gives it no less.
    """

    def __init__(self, caller: Caller, timeout_s: float) -> None:
        self._caller = caller
        self._timeout_s = timeout_s

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """How a method is answered; None for what is not relayed."""
        method = handler_call_details.method
        if method == _STREAM:
            return grpc.stream_stream_rpc_method_handler(self._answer_stream)
        if not method.startswith(INFERENCE_SERVICE):
            return None

        async def answer(request: bytes, context: Context) -> bytes:
            return await self._answer(method, request, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    async def _answer(self, method: str, request: bytes, context: Context) -> bytes:
        # A call is here because its client compresses.
        context.set_compression(grpc.Compression.Gzip)
        try:
            return await self._ask(method, request, context)
        except grpc.aio.AioRpcError as error:
            return await context.abort(error.code(), error.details() or "", details(error))

    async def _answer_stream(self, _: Any, context: Context) -> None:
        answers = asyncio.Queue[asyncio.Task[bytes] | None](_IN_FLIGHT)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask_all(tasks, answers, context))
            while (answer := await answers.get()) is not None:
                await context.write(await answer)

    async def _ask_all(
        self,
        tasks: asyncio.TaskGroup,
        answers: asyncio.Queue[asyncio.Task[bytes] | None],
        context: Context,
    ) -> None:
        while (request := await context.read()) is not _EOF:
            await answers.put(tasks.create_task(self._ask_wrapped(request, context)))
        await answers.put(None)

    async def _ask_wrapped(self, request: bytes, context: Context) -> bytes:
        try:
            answer = await self._ask(MODEL_INFER, request, context)
        except grpc.aio.AioRpcError as error:
            return wrapped_error(request, error.details() or error.code().name)
        return wrapped_answer(answer)

    async def _ask(self, method: str, request: bytes, context: Context) -> bytes:
        timeout_s = left_s(context, self._timeout_s)
        return await self._caller.call(method, request, repeated(context), timeout_s)


def relayed_matches() -> list[dict[str, Any]]:
    """As matches of Envoy's routes: streams, reflection, compressed messages."""
    compressed = [
        {"name": "grpc-encoding", "present_match": True},
        {"name": "grpc-encoding", "string_match": {"exact": "identity"}, "invert_match": True},
    ]
    return [
        {"path": _STREAM},
        {"prefix": _REFLECTION},
        {"prefix": INFERENCE_SERVICE, "headers": compressed},
    ]
