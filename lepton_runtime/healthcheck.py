"""Ask the service of this environment whether it serves: exit 0, or 1 with the reason.

For Docker and the like: `python -m lepton_runtime.healthcheck`, with the service's settings.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from lepton_ai.errors import LeptonError, UnavailableError
from lepton_ai.rpc import open_channel, translated_errors
from lepton_runtime.settings import RuntimeSettings

__all__ = ["check_health"]

_DEADLINE_S = 2.0


async def check_health(settings: RuntimeSettings) -> None:
    """Return when the service serves.

    Raises:
        UnavailableError: It does not, or nothing answers.
    """
    address = f"127.0.0.1:{settings.port}"
    token, credentials = settings.service_token, settings.channel_credentials
    async with open_channel(address, token, credentials) as channel, translated_errors():
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_DEADLINE_S)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise UnavailableError("the service does not serve")


if __name__ == "__main__":
    try:
        asyncio.run(check_health(RuntimeSettings()))  # pyright: ignore[reportCallIssue]
    except LeptonError as error:
        sys.exit(str(error))
