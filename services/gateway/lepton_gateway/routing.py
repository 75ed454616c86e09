"""Keeps Envoy's documents in step with the cluster."""

from __future__ import annotations

import asyncio

import structlog
from google.protobuf.message import DecodeError

from lepton_gateway.addresses import resolve
from lepton_gateway.envoy.clusters import Tls
from lepton_gateway.envoy.documents import DocumentFolder, render
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.mirror import Mirror
from lepton_gateway.table import RouteTable, build_table
from lepton_runtime.clock import Clock

__all__ = ["Routing"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.gateway")
# Changes come in bursts: one document for all of them.
_GATHER_S = 0.02
# A name may get another address, and a revoked key expire, without a change of records.
_REFRESH_S = 5.0


class Routing:
    """Keeps Envoy's documents in step with the cluster.

    Args:
        mirror: The cluster's records.
        clock: Tells when revocations have expired.
        documents: Takes the documents to Envoy.
        limits: What is refused.
        tls: How to reach services and replicas; None for plain text.
    """

    def __init__(
        self,
        mirror: Mirror,
        clock: Clock,
        documents: DocumentFolder,
        limits: Limits,
        tls: Tls | None,
    ) -> None:
        self._mirror = mirror
        self._clock = clock
        self._documents = documents
        self._limits = limits
        self._tls = tls
        self.table = RouteTable()

    async def start(self) -> None:
        """Write the first documents, once the cluster has been read."""
        await self._mirror.wait_changed()
        await self._update()

    async def run(self) -> None:
        """Keep up until cancelled. What cannot be read or written leaves all as it was."""
        while True:
            await self._wait()
            try:
                await self._update()
            except (DecodeError, ValueError, OSError) as error:
                _log.error("routes_not_updated", reason=str(error))

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_REFRESH_S):
                await self._mirror.wait_changed()
        except TimeoutError:
            return
        await self._clock.sleep(_GATHER_S)

    async def _update(self) -> None:
        self.table = build_table(self._mirror.records, self._clock.now())
        resolved = self.table.resolved(await resolve(self.table.addresses()))
        self._documents.write(render(resolved, str(self._documents.path), self._limits, self._tls))
