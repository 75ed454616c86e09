"""gRPC as raw messages, for Envoy and to Envoy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, cast

import grpc
from grpc_reflection.v1alpha import reflection

__all__ = ["CallServer", "Caller", "Context", "Metadata", "details", "left_s", "repeated"]

_CONNECT_ANEW: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
# Who asks, and how the request is called in logs; nothing else of the first call is repeated.
_REPEATED: Final = ("authorization", "x-request-id")
_DETAILS: Final = "grpc-status-details-bin"

Context = grpc.aio.ServicerContext[bytes, bytes]
Metadata = tuple[tuple[str, str | bytes], ...]


class CallServer:
    """A gRPC server on loopback.

    Args:
        handler: Answers.
        max_message_bytes: Size of a message, decompressed.
        described: Full names of services that reflection describes, all of them imported; with
            none there is no reflection.
    """

    def __init__(
        self,
        handler: grpc.GenericRpcHandler,
        max_message_bytes: int,
        described: Sequence[str] = (),
    ) -> None:
        self._server = grpc.aio.server(
            options=[*_limits(max_message_bytes), ("grpc.so_reuseport", 0)]
        )
        if described:
            names = (*described, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self._server.add_generic_rpc_handlers((handler,))

    async def start(self) -> int:
        """Listen on loopback, and return the port."""
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def stop(self, grace_s: float) -> None:
        """Let calls under way finish for `grace_s` seconds, then end the others."""
        await self._server.stop(grace_s)


class Caller:
    """Makes plain calls to Envoy.

    Args:
        target: Where it listens, as gRPC names it (``host:port`` or ``unix:path``).
        max_message_bytes: Size of a message.
    """

    def __init__(self, target: str, max_message_bytes: int) -> None:
        options = [*_limits(max_message_bytes), *_CONNECT_ANEW]
        self._channel = grpc.aio.insecure_channel(target, options=options)

    async def call(
        self, method: str, message: bytes, metadata: Metadata, timeout_s: float
    ) -> bytes:
        """The answer.

        Raises:
            grpc.aio.AioRpcError: What was answered instead.
        """
        call = self._channel.unary_unary(method)
        return await call(message, timeout=timeout_s, metadata=metadata, wait_for_ready=True)

    async def close(self) -> None:
        """End calls under way."""
        await self._channel.close()


def repeated(context: Context) -> Metadata:
    """What a call that is made on behalf of another says."""
    said = context.invocation_metadata() or ()
    return tuple((key, value) for key, value in said if key in _REPEATED)


def left_s(context: Context, most_s: float) -> float:
    """What a call on behalf of another may take: no more than its client's deadline leaves."""
    remaining_s = cast("float | None", context.time_remaining())  # None where there is none
    return most_s if remaining_s is None else min(remaining_s, most_s)


def details(error: grpc.aio.AioRpcError) -> Metadata:
    """What an error says beyond its text, such as when to come back."""
    trailers = error.trailing_metadata() or ()
    return tuple((key, value) for key, value in trailers if key == _DETAILS)


def _limits(max_message_bytes: int) -> Iterable[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
    )
