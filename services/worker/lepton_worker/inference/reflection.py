"""What there is to call, for clients that ask (`grpc.reflection`, as `grpcurl` does)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from lepton_runtime.http import Exchange
from lepton_runtime.oip import grpc_service_pb2 as pb

__all__ = ["handle"]

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


def handle(exchange: Exchange) -> None:
    """Answer one request of a stream. `v1` and `v1alpha` have the same messages."""
    # Few ask, and the package brings all of gRPC with it: ten megabytes.
    from grpc_reflection.v1alpha import reflection_pb2

    request = reflection_pb2.ServerReflectionRequest.FromString(exchange.body)
    [answer] = _servicer().ServerReflectionInfo(iter([request]), None)
    exchange.reply(200, b"", answer.SerializeToString())


@lru_cache(1)
def _servicer() -> Any:
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection

    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    return reflection.ReflectionServicer((_SERVICE, health, reflection.SERVICE_NAME))
