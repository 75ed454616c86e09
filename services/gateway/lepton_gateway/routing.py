"""Keeps Envoy's documents in step with the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Set

import structlog
from google.protobuf.message import DecodeError

from lepton_gateway.addresses import resolve
from lepton_gateway.envoy.bootstrap import ROUTES_FILE
from lepton_gateway.envoy.clusters import Tls
from lepton_gateway.envoy.documents import DocumentFolder, render
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.mirror import Mirror
from lepton_gateway.table import Group, RouteTable, build_table
from lepton_runtime.clock import Clock

__all__ = ["Routing"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.gateway")
# Changes come in bursts: one document for all of them.
_GATHER_S = 0.02
# A name may get another address, and a revoked key expire, without a change of records.
_REFRESH_S = 5.0
# By then Envoy has long taken up routes that do without a group of replicas.
_RETIRING_S = 5.0
_REMEMBERED = 64  # versions of the routes


class Routing:
    """Keeps Envoy's documents in step with the cluster. `changed` is set when they changed.

    Args:
        mirror: The cluster's records.
        clock: Tells when revocations have expired.
        documents: Takes the documents to Envoy.
        shadow_port: Where answers are compared, on loopback.
        limits: What is refused.
        tls: How to reach services and replicas; None for plain text.
    """

    def __init__(
        self,
        mirror: Mirror,
        clock: Clock,
        documents: DocumentFolder,
        *,
        shadow_port: int,
        limits: Limits,
        tls: Tls | None,
    ) -> None:
        self._mirror = mirror
        self._clock = clock
        self._documents = documents
        self._shadow_port = shadow_port
        self._limits = limits
        self._tls = tls
        self.table = RouteTable()
        self.changed = asyncio.Event()
        # By version, the oldest first.
        self._written: dict[str, RouteTable] = {}
        # Until when each group of replicas is kept, as far as is known now.
        self._groups: dict[Group, float] = {}
        self._warm: Set[tuple[str, int]] = frozenset()

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

    @property
    def newest(self) -> str:
        """The version of the routes that were written last; empty before the first."""
        return next(reversed(self._written), "")

    def written(self, version: str) -> RouteTable | None:
        """The table that routes of a version were made of; None if that was long ago."""
        return self._written.get(version)

    def found_warm(self, warm: Set[tuple[str, int]]) -> None:
        """Take note of the deployments and versions that Envoy reaches by the newest routes."""
        if warm != self._warm:
            self._warm = warm
            self._mirror.touch()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_REFRESH_S):
                await self._mirror.wait_changed()
        except TimeoutError:
            return
        await self._clock.sleep(_GATHER_S)

    def _retiring(self, table: RouteTable) -> RouteTable:
        """The table, with what was there a moment ago."""
        now = self._clock.monotonic()
        self._groups = {g: until for g, until in self._groups.items() if until > now}
        self._groups |= dict.fromkeys(table.groups, now + _RETIRING_S)
        newest = {(group.name, group.version): group for group in self._groups}
        return table.retiring(newest.values())

    async def _update(self) -> None:
        table = build_table(self._mirror.records, self._clock.now())
        # Who comes back was away, and has to be found well anew.
        self._warm &= {(one.name, version) for one in table.deployments for version in one.versions}
        self.table = table.roused(self._warm)
        resolved = self._retiring(self.table.resolved(await resolve(self.table.addresses())))
        folder = str(self._documents.path)
        documents = render(resolved, folder, self._shadow_port, self._limits, self._tls)
        self._documents.write(documents)
        version = documents[ROUTES_FILE]["version_info"]
        if version == self.newest:
            return
        self._written.pop(version, None)
        self._written[version] = self.table
        if len(self._written) > _REMEMBERED:
            del self._written[next(iter(self._written))]
        self.changed.set()
