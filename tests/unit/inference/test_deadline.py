"""The shortest of the times a client and its gateway will wait."""

from __future__ import annotations

import pytest

from lepton_ai.errors import InvalidArgumentError
from lepton_worker.inference.deadline import timeout_us


@pytest.mark.parametrize(
    ("headers", "parameter_us", "expected_us"),
    [
        ({}, 0, 0),
        ({}, 500, 500),
        ({b"x-envoy-expected-rq-timeout-ms": b"2"}, 0, 2000),
        ({b"x-envoy-expected-rq-timeout-ms": b"2"}, 500, 500),
        ({b"grpc-timeout": b"3S"}, 0, 3_000_000),
        ({b"grpc-timeout": b"10n"}, 0, 1),
        ({b"grpc-timeout": b"1m", b"x-envoy-expected-rq-timeout-ms": b"9"}, 0, 1000),
    ],
)
def test_the_shortest_counts(
    headers: dict[bytes, bytes], parameter_us: int, expected_us: int
) -> None:
    assert timeout_us(headers, parameter_us) == expected_us


@pytest.mark.parametrize("value", [b"", b"5", b"S", b"-1S", b"1x"])
def test_a_header_that_is_no_time_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        timeout_us({b"grpc-timeout": value}, 0)
