"""gRPC channels as every part of Lepton opens them, and errors as they cross the wire."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.rpc import error_details_pb2, status_pb2

from lepton_ai.errors import LeptonError, error_from_status, status_of

__all__ = [
    "MAX_MESSAGE_BYTES",
    "TlsFiles",
    "error_of_call",
    "error_of_status",
    "open_channel",
    "status_of_error",
    "translated_errors",
]

# Bulk data travels in parts of 1 MiB; this leaves room for large lists.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
STATUS_DETAILS = "grpc-status-details-bin"
_DOMAIN = "lepton"
# Servers allow a ping every 5 s.
_KEEPALIVE_MS = 10_000


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of mutual TLS: ours, and the authority that signs everyone's."""

    authority: Path
    certificate: Path
    key: Path

    def client_context(self) -> ssl.SSLContext:
        """What an HTTP client shows and trusts."""
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def server_context(self) -> ssl.SSLContext:
        """What an HTTP server shows, and whom it lets in: those whom the authority signed."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """What a client shows and trusts."""
        return grpc.ssl_channel_credentials(
            self.authority.read_bytes(),
            self.key.read_bytes(),
            self.certificate.read_bytes(),
        )


def open_channel(
    address: str, token: str | None = None, credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """A channel to ``host:port`` that notices a dead peer and sends `token` with every call.

    It connects when first used, by TLS where there are `credentials`. Close it when done.
    """
    options: list[tuple[str, int]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS // 2),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    interceptors = _bearers(token) if token else None
    if credentials is None:
        return grpc.aio.insecure_channel(address, options, interceptors=interceptors)
    return grpc.aio.secure_channel(address, credentials, options, interceptors=interceptors)


@contextlib.asynccontextmanager
async def translated_errors() -> AsyncGenerator[None]:
    """Turn what gRPC raises inside into `lepton_ai.errors`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_of_call(error) from None


def error_of_call(error: grpc.aio.AioRpcError) -> LeptonError:
    """The error that a call ended with, as its sender raised it where it says so."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return error_of_status(status_pb2.Status.FromString(value))
    number = int(error.code().value[0])
    return error_from_status(number, error.details() or "the call failed without a word")


def error_of_status(status: status_pb2.Status) -> LeptonError:
    """The error in a `google.rpc.Status`."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == _DOMAIN:
            ids = dict(info.metadata)
            message, hint = ids.pop("message", status.message), ids.pop("hint", "")
            return error_from_status(status.code, message, hint=hint, reason=info.reason, **ids)
    return error_from_status(status.code, status.message)


def status_of_error(error: LeptonError) -> status_pb2.Status:
    """`error` as a `google.rpc.Status` with an `ErrorInfo` that rebuilds it."""
    status = status_pb2.Status(code=status_of(error).grpc, message=str(error))
    metadata: Mapping[str, str] = {**error.ids, "message": error.message, "hint": error.hint}
    info = error_details_pb2.ErrorInfo(
        reason=type(error).__name__, domain=_DOMAIN, metadata=metadata
    )
    status.details.add().Pack(info)
    return status


class _Bearer:
    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def _with_token(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), self._header)
        return details._replace(metadata=metadata)  # pyright: ignore[reportAttributeAccessIssue]


class _UnaryUnary(_Bearer, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(self._with_token(client_call_details), request)


class _UnaryStream(_Bearer, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(self._with_token(client_call_details), request)


class _StreamUnary(_Bearer, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation, client_call_details, request_iterator):  # type: ignore[no-untyped-def]
        return await continuation(self._with_token(client_call_details), request_iterator)


class _StreamStream(_Bearer, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation, client_call_details, request_iterator):  # type: ignore[no-untyped-def]
        return await continuation(self._with_token(client_call_details), request_iterator)


def _bearers(token: str) -> list[grpc.aio.ClientInterceptor]:
    return [_UnaryUnary(token), _UnaryStream(token), _StreamUnary(token), _StreamStream(token)]
