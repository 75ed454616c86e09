"""The gRPC server that every service runs: keys, roles, errors, health, reflection, drain."""

from __future__ import annotations

import contextvars
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import Histogram

from lepton_ai.errors import (
    InternalError,
    LeptonError,
    UnimplementedError,
)
from lepton_ai.proto.v1 import options_pb2
from lepton_ai.rpc import MAX_MESSAGE_BYTES, STATUS_DETAILS, TlsFiles, status_of_error
from lepton_runtime.auth import Principal, TokenVerifier

__all__ = ["GrpcServer", "Servicer", "principal"]

_log = structlog.get_logger("lepton.grpc")
_principal: contextvars.ContextVar[Principal] = contextvars.ContextVar("principal")
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OPEN_METHODS = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
_MAX_STREAMS = 1_000
_calls = Histogram("lepton_grpc_call_seconds", "Calls answered.", ["method", "code"])


def principal() -> Principal:
    """Who makes the call being answered."""
    return _principal.get()


@dataclass(frozen=True)
class Servicer:
    """A servicer, what adds it to a server, and the service it implements."""

    servicer: object
    add: Callable[[Any, grpc.aio.Server], None]
    service: ServiceDescriptor


class GrpcServer:
    """Answers calls from those who may make them.

    Args:
        servicers: What it answers with.
        verifier: Checks the key of each call.
        tls: Mutual TLS, required on anything but loopback.
    """

    def __init__(
        self, servicers: Sequence[Servicer], verifier: TokenVerifier, tls: TlsFiles | None
    ) -> None:
        roles = _required_roles([entry.service for entry in servicers])
        self._tls = tls
        self._server = grpc.aio.server(
            interceptors=[_Guard(verifier, roles)],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", _MAX_STREAMS),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.so_reuseport", 0),
            ],
        )
        for entry in servicers:
            entry.add(entry.servicer, self._server)
        aio: Any = vars(health)["aio"]  # out of a type checker's sight
        self._health = aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [entry.service.full_name for entry in servicers]
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port."""
        address = f"{host}:{port}"
        if self._tls is None:
            bound = self._server.add_insecure_port(address)
        else:
            bound = self._server.add_secure_port(address, _server_credentials(self._tls))
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        return bound

    async def drain(self, grace_s: float) -> None:
        """Say that it is going, then let calls under way finish for `grace_s` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


class _Guard(grpc.aio.ServerInterceptor):
    """Lets a call through only with a valid key of a sufficient role; shapes its errors."""

    def __init__(self, verifier: TokenVerifier, roles: dict[str, int]) -> None:
        self._verifier = verifier
        self._roles = roles

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_OPEN_METHODS):
            return handler
        metadata = dict(handler_call_details.invocation_metadata or ())
        admit = _Admission(self._verifier, self._roles.get(method), method, metadata)
        return _guarded(handler, admit)


class _Admission:
    """One call: who makes it, and how its errors are told."""

    def __init__(
        self,
        verifier: TokenVerifier,
        role: int | None,
        method: str,
        metadata: dict[str, str | bytes],
    ) -> None:
        self._verifier = verifier
        self._role = role
        self._method = method
        self._metadata = metadata
        self.request_id = str(metadata.get("x-request-id") or uuid.uuid4().hex)
        self._began = time.perf_counter()

    def check(self) -> None:
        """Raise unless the call may be made."""
        authorization = str(self._metadata.get("authorization", ""))
        caller = self._verifier.admit(authorization, self._role or 0)
        if not self._role:
            raise UnimplementedError(f"{self._method} is not offered")
        _principal.set(caller)

    def count(self, code: grpc.StatusCode) -> None:
        """Record that the call ended with `code`."""
        _calls.labels(self._method, code.name).observe(time.perf_counter() - self._began)

    async def abort(self, context: Any, error: Exception) -> None:
        """End the call with `error`, whose internals stay in the log."""
        if isinstance(error, NotImplementedError):  # what generated code raises
            error = UnimplementedError(f"{self._method} is not offered")
        if not isinstance(error, LeptonError):
            _log.error(
                "call failed", method=self._method, request_id=self.request_id, exc_info=error
            )
            error = InternalError("something went wrong inside", request_id=self.request_id)
        status = status_of_error(error)
        details = ((STATUS_DETAILS, status.SerializeToString()),)
        self.count(_CODES[status.code])
        await context.abort(_CODES[status.code], status.message, details)


def _guarded(handler: Any, admission: _Admission) -> grpc.RpcMethodHandler[Any, Any]:
    kind = (
        grpc.stream_stream_rpc_method_handler
        if handler.request_streaming and handler.response_streaming
        else grpc.stream_unary_rpc_method_handler
        if handler.request_streaming
        else grpc.unary_stream_rpc_method_handler
        if handler.response_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    behaviour = (
        _streamed(handler.unary_stream or handler.stream_stream, admission)
        if handler.response_streaming
        else _single(handler.unary_unary or handler.stream_unary, admission)
    )
    return kind(behaviour, handler.request_deserializer, handler.response_serializer)


def _single(inner: Callable[..., Awaitable[Any]], admission: _Admission) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> Any:
        structlog.contextvars.bind_contextvars(request_id=admission.request_id)
        try:
            admission.check()
            response = await inner(request, context)
            admission.count(grpc.StatusCode.OK)
            return response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - every error becomes a status here
            await admission.abort(context, error)

    return answer


def _streamed(
    inner: Callable[..., AsyncIterator[Any]], admission: _Admission
) -> Callable[..., AsyncIterator[Any]]:
    async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
        structlog.contextvars.bind_contextvars(request_id=admission.request_id)
        try:
            admission.check()
            async for response in inner(request, context):
                yield response
            admission.count(grpc.StatusCode.OK)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - every error becomes a status here
            await admission.abort(context, error)

    return answer


def _required_roles(services: Sequence[ServiceDescriptor]) -> dict[str, int]:
    extension: Any = options_pb2.required_role
    return {
        f"/{service.full_name}/{method.name}": method.GetOptions().Extensions[extension]
        for service in services
        for method in service.methods
    }


def _server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    assert tls.certificate and tls.key
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], tls.authority.read_bytes(), True)
