"""What a gateway can be told."""

from __future__ import annotations

from pydantic import Field

from lepton_gateway.envoy.limits import Limits
from lepton_gateway.queued.service import QueueingLimits
from lepton_runtime.settings import RuntimeSettings

__all__ = ["GatewaySettings"]


class GatewaySettings(RuntimeSettings):
    """Settings of the gateway, in addition to those that all services share.

    `host` and `port` are where clients connect; `keys_dir` holds signing.pem too.
    """

    port: int = Field(8080, ge=1, le=65535, description="Port that clients connect to.")
    envoy_concurrency: int = Field(1, ge=1, description="Envoy's worker threads.")
    drain_timeout_s: float = Field(
        10.0, ge=0, description="How long requests in progress may take at the end."
    )
    max_connections: int = Field(4096, ge=1, description="Client connections open at once.")
    max_requests: int = Field(
        4096, ge=1, description="Requests in progress at once to one deployment."
    )
    max_request_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Body of one inference request."
    )
    inference_timeout_s: float = Field(
        60.0, gt=0, description="Longest an inference request may take, tries included."
    )

    queued_requests: int = Field(10_000, ge=1, description="Queued requests that wait at once.")
    queue_bytes: int = Field(
        256 * 1024 * 1024, ge=1024 * 1024, description="Size of all queued requests together."
    )
    queue_wait_s: float = Field(
        3600.0, ge=1, description="Longest a queued request waits; its answer is kept as long."
    )
    webhooks_private: bool = Field(
        False, description="Whether webhooks may go to loopback and private addresses."
    )

    @property
    def queueing(self) -> QueueingLimits:
        """Bounds on what waits."""
        return QueueingLimits(
            requests=self.queued_requests,
            size_bytes=self.queue_bytes,
            wait_s=self.queue_wait_s,
            private_webhooks=self.webhooks_private,
        )

    @property
    def limits(self) -> Limits:
        """What is refused."""
        return Limits(
            max_connections=self.max_connections,
            max_requests=self.max_requests,
            max_request_bytes=self.max_request_bytes,
            inference_timeout_s=self.inference_timeout_s,
        )

    @property
    def signing_key(self) -> bytes:
        """The private key that new API keys are signed with (PEM)."""
        return (self.keys_dir / "signing.pem").read_bytes()
