"""What Envoy's bridge to HTTP/1.1 cannot carry of gRPC inference: streams and compressed messages.

Envoy sends these calls here, and here every message of them becomes one plain unary call to Envoy
again. So each is routed, balanced, tried again and refused like any other, and the inference
servers never see a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import grpc
from grpc_reflection.v1alpha import reflection

from lepton_runtime.oip import grpc_service_pb2 as pb
from lepton_runtime.triton_stream import wrapped_answer, wrapped_error

__all__ = ["Relay", "relayed_matches"]

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_STREAM: Final = f"/{_SERVICE}/ModelStreamInfer"
_PREFIXES: Final = (f"/{_SERVICE}/", "/grpc.health.v1.Health/")
_REFLECTION: Final = "/grpc.reflection."
_EOF: Final = vars(grpc.aio)["EOF"]  # out of a type checker's sight
_INFER: Final = f"/{_SERVICE}/ModelInfer"
# Requests of one stream that are under way, so that they can share a batch.
_IN_FLIGHT: Final = 32
_CONNECT_ANEW: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
# Who asks, and how the request is called in logs; nothing else of the first call is repeated.
_REPEATED: Final = ("authorization", "x-request-id")
_DETAILS: Final = "grpc-status-details-bin"

_Context = grpc.aio.ServicerContext[bytes, bytes]
_Metadata = tuple[tuple[str, str | bytes], ...]


class Relay(grpc.GenericRpcHandler):
    """A gRPC server on loopback that repeats what it is asked, one message a call.

    Args:
        target: Where unary calls go, as gRPC names it (``host:port`` or ``unix:path``).
        max_message_bytes: Size of a message, decompressed.
        timeout_s: What one call may take, when the client gives it no less.
        described: Full names of more services that reflection describes, all of them imported.
    """

    def __init__(
        self,
        target: str,
        max_message_bytes: int,
        timeout_s: float,
        described: Sequence[str] = (),
    ) -> None:
        limits = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
        ]
        self._timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(target, options=[*limits, *_CONNECT_ANEW])
        self._server = grpc.aio.server(options=[*limits, ("grpc.so_reuseport", 0)])
        names = (_SERVICE, *described, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._server.add_generic_rpc_handlers((self,))

    async def start(self) -> int:
        """Listen on loopback, and return the port."""
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def stop(self, grace_s: float) -> None:
        """Let calls under way finish for `grace_s` seconds, then end the others."""
        await self._server.stop(grace_s)
        await self._channel.close()

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """How a method is answered; None for what is not relayed."""
        method = handler_call_details.method
        if method == _STREAM:
            return grpc.stream_stream_rpc_method_handler(self._answer_stream)
        if not method.startswith(_PREFIXES):
            return None

        async def answer(request: bytes, context: _Context) -> bytes:
            return await self._answer(method, request, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    async def _answer(self, method: str, request: bytes, context: _Context) -> bytes:
        # A call is here because its client compresses.
        context.set_compression(grpc.Compression.Gzip)
        try:
            return await self._ask(method, request, context)
        except grpc.aio.AioRpcError as error:
            return await context.abort(error.code(), error.details() or "", _details(error))

    async def _answer_stream(self, _: Any, context: _Context) -> None:
        answers = asyncio.Queue[asyncio.Task[bytes] | None](_IN_FLIGHT)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask_all(tasks, answers, context))
            while (answer := await answers.get()) is not None:
                await context.write(await answer)

    async def _ask_all(
        self,
        tasks: asyncio.TaskGroup,
        answers: asyncio.Queue[asyncio.Task[bytes] | None],
        context: _Context,
    ) -> None:
        while (request := await context.read()) is not _EOF:
            await answers.put(tasks.create_task(self._ask_wrapped(request, context)))
        await answers.put(None)

    async def _ask_wrapped(self, request: bytes, context: _Context) -> bytes:
        try:
            answer = await self._ask(_INFER, request, context)
        except grpc.aio.AioRpcError as error:
            return wrapped_error(request, error.details() or error.code().name)
        return wrapped_answer(answer)

    async def _ask(self, method: str, request: bytes, context: _Context) -> bytes:
        call = self._channel.unary_unary(method)
        # None where the client set no deadline.
        timeout_s = min(context.time_remaining() or self._timeout_s, self._timeout_s)
        return await call(
            request, timeout=timeout_s, metadata=_repeated(context), wait_for_ready=True
        )


def _details(error: grpc.aio.AioRpcError) -> _Metadata:
    """What an error says beyond its text, such as when to come back."""
    trailers = error.trailing_metadata() or ()
    return tuple((key, value) for key, value in trailers if key == _DETAILS)


def relayed_matches() -> list[dict[str, Any]]:
    """As matches of Envoy's routes: streams, compressed messages, reflection."""
    compressed = [
        {"name": "grpc-encoding", "present_match": True},
        {"name": "grpc-encoding", "string_match": {"exact": "identity"}, "invert_match": True},
    ]
    return [
        {"path": _STREAM},
        {"prefix": _REFLECTION},
        *({"prefix": prefix, "headers": compressed} for prefix in _PREFIXES),
    ]


def _repeated(context: _Context) -> _Metadata:
    return tuple(
        (key, value) for key, value in context.invocation_metadata() or () if key in _REPEATED
    )
