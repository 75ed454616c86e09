"""Calls that no replica answers: how the cluster stands, and those for models that sleep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import grpc
import structlog

from lepton_ai.errors import InternalError, LeptonError, status_of
from lepton_ai.oip.messages import INFERENCE_SERVICE
from lepton_gateway.calls.serving import Caller, Context, details, left_s, repeated
from lepton_gateway.envoy.lua import MODEL_HEADER
from lepton_gateway.protocol import SERVING, answer_call, why_not
from lepton_gateway.table import RouteTable
from lepton_gateway.waking import WOKEN_HEADER, Waking

__all__ = ["OwnCalls"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.gateway")
_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class OwnCalls(grpc.GenericRpcHandler):
    """Answers what Envoy has no replica for.

    Args:
        table: Answers the table of the moment.
        waking: Holds requests for models that sleep.
        caller: Asks Envoy once they are awake.
        version: Of this software.
    """

    def __init__(
        self, table: Callable[[], RouteTable], waking: Waking, caller: Caller, version: str
    ) -> None:
        self._table = table
        self._waking = waking
        self._caller = caller
        self._version = version

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """How a method is answered; None for what is not offered."""
        method = handler_call_details.method
        if method == _HEALTH_CHECK:
            return grpc.unary_unary_rpc_method_handler(_healthy)
        if not method.startswith(INFERENCE_SERVICE):
            return None

        async def answer(request: bytes, context: Context) -> bytes:
            try:
                return await self._answer(method, request, context)
            except grpc.aio.AioRpcError as error:
                return await context.abort(error.code(), error.details() or "", details(error))
            except LeptonError as error:
                return await _refuse(error, context)
            except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
                _log.exception("call_failed")
                return await _refuse(InternalError("the call failed"), context)

        return grpc.unary_unary_rpc_method_handler(answer)

    async def _answer(self, method: str, request: bytes, context: Context) -> bytes:
        said = dict(context.invocation_metadata() or ())
        name = str(said.get(MODEL_HEADER, "")).partition("/")[0]
        if not name or not self._waking.is_asleep(name):
            call = method.removeprefix(INFERENCE_SERVICE)
            return answer_call(call, name, self._table(), self._version)
        if WOKEN_HEADER in said:
            raise why_not(self._table(), name)
        return await self._waking.answer(name, partial(self._ask, method, request, context))

    async def _ask(
        self, method: str, request: bytes, context: Context, timeout_s: float
    ) -> bytes | None:
        metadata = (*repeated(context), (WOKEN_HEADER, "1"))
        try:
            return await self._caller.call(method, request, metadata, left_s(context, timeout_s))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return None
            raise


async def _healthy(_request: bytes, _context: Context) -> bytes:
    return SERVING


async def _refuse(error: LeptonError, context: Context) -> bytes:
    return await context.abort(_CODES[status_of(error).grpc], str(error))
