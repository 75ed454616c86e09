"""Bounds on what one gateway takes in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds on what one gateway takes in.

    Args:
        max_connections: Client connections open at once; further ones are refused.
        max_requests: Requests in progress at once to the replicas of one deployment.
        max_request_bytes: Body of one inference request. It is buffered whole, so that it can be
            sent again to another replica.
        transfer_timeout_s: Longest that taking or giving a chunk of an object may take.
        inference_timeout_s: Longest an inference request may take, tries included.
    """

    max_connections: int = 4096
    max_requests: int = 4096
    max_request_bytes: int = 64 * 1024 * 1024
    transfer_timeout_s: float = 120.0
    inference_timeout_s: float = 60.0
