"""How long a client waits: what it says itself, what its gateway says, whichever is less."""

from __future__ import annotations

from lepton_ai.errors import InvalidArgumentError

# Envoy tells its upstreams how long it will wait; gRPC clients send their deadline.
_GATEWAY_MS = b"x-envoy-expected-rq-timeout-ms"
_GRPC = b"grpc-timeout"
_GRPC_UNIT_US = {
    b"H": 3_600_000_000,
    b"M": 60_000_000,
    b"S": 1_000_000,
    b"m": 1000,
    b"u": 1,
    b"n": 0.001,
}


def timeout_us(headers: dict[bytes, bytes], parameter_us: int) -> int:
    """The shortest of a request's timeouts in microseconds; 0 when it has none.

    Raises:
        InvalidArgumentError: A header is not a time.
    """
    if _GATEWAY_MS not in headers and _GRPC not in headers:
        return parameter_us
    limits_us = [parameter_us] if parameter_us else []
    if (gateway_ms := headers.get(_GATEWAY_MS)) is not None:
        limits_us.append(_number(_GATEWAY_MS, gateway_ms) * 1000)
    if (grpc := headers.get(_GRPC)) is not None:
        limits_us.append(_grpc_us(grpc))
    return max(1, min(limits_us))


def _grpc_us(value: bytes) -> int:
    unit_us = _GRPC_UNIT_US.get(value[-1:])
    if unit_us is None:
        raise InvalidArgumentError("header 'grpc-timeout' has no unit", hint="such as 500m")
    return int(_number(_GRPC, value[:-1]) * unit_us)


def _number(header: bytes, value: bytes) -> int:
    if value.isdigit():
        return int(value)
    raise InvalidArgumentError(f"header {header.decode()!r} is not a whole number")
