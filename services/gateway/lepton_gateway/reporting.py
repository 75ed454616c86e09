"""Tells the schedulers what becomes of requests here, and which routes are in force."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter

from lepton_ai.errors import UnavailableError
from lepton_ai.proto.v1 import serving_pb2
from lepton_gateway.envoy.admin import Admin, Sample
from lepton_gateway.envoy.names import ROUTES, SHADOW_CLUSTERS, VERSION_CLUSTERS
from lepton_gateway.routing import Routing
from lepton_gateway.shadowing.app import Shadowing, Tally
from lepton_gateway.table import RouteTable
from lepton_runtime.bus import SERVING, Bus

__all__ = ["Reporter", "Totals", "read_totals"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.gateway")
_INTERVAL_S = 0.5
# While new routes are on their way into Envoy, or somebody waits for a model to wake.
_HURRY_S = 0.03
# A call of gRPC that fails has status 200 of HTTP.
_COUNTED = (
    r"upstream_rq_(completed|[45]xx|time|active|pending_active)|grpc\.failure|membership_healthy"
)
_NAMES = (
    rf"^cluster\.{VERSION_CLUSTERS}.*\.({_COUNTED})$"
    rf"|^cluster\.{SHADOW_CLUSTERS}.*\.upstream_rq_pending_overflow$"
    rf"|\.rds\.{ROUTES}\.version_text$"
)
_rows = Counter(
    "lepton_shadow_rows",
    "Rows of mirrored requests, by what came of comparing answers.",
    ("deployment", "version", "outcome"),
)
_dropped = Counter(
    "lepton_shadow_dropped_requests",
    "Mirrored requests that were not compared, because too many were under way.",
    ("deployment", "version"),
)
_Version = tuple[str, int]  # deployment, version


@dataclass
class Totals:
    """What Envoy has counted of one version of a deployment since it began."""

    healthy: int = 0
    outstanding: int = 0
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    # Requests that would have been mirrored, had not too many been under way.
    dropped: int = 0

    def since(self, before: Totals) -> serving_pb2.VersionLoad:
        """What was added; all of it if Envoy has begun anew."""
        if self.requests < before.requests:
            before = Totals()
        return serving_pb2.VersionLoad(
            healthy=self.healthy,
            outstanding=self.outstanding,
            requests=self.requests - before.requests,
            errors=max(self.errors - before.errors, 0),
            seconds=max(self.seconds - before.seconds, 0.0),
            dropped=max(self.dropped - before.dropped, 0),
        )


def read_totals(samples: Iterable[Sample]) -> tuple[str, dict[_Version, Totals]]:
    """The version of the routes in force, and the totals of each version of each deployment."""
    routes = ""
    totals: defaultdict[_Version, Totals] = defaultdict(Totals)
    for name, labels, value in samples:
        if name.endswith("version_text"):
            routes = labels.get("text_value", routes)
        cluster = labels.get("envoy_cluster_name", "")
        if cluster.startswith((VERSION_CLUSTERS, SHADOW_CLUSTERS)):
            _, deployment, version = cluster.split("/")
            _add(totals[deployment, int(version)], name, value)
    return routes, totals


def _add(totals: Totals, name: str, value: float) -> None:
    match name.removeprefix("envoy_cluster_"):
        case "membership_healthy":
            totals.healthy = int(value)
        case "upstream_rq_active" | "upstream_rq_pending_active":
            totals.outstanding += int(value)
        case "upstream_rq_completed":
            totals.requests = int(value)
        case "upstream_rq_xx" | "grpc_failure":  # of the classes, 4 and 5 alone are asked for
            totals.errors += int(value)
        case "upstream_rq_time_sum":
            totals.seconds = value / 1e3
        case "upstream_rq_pending_overflow":  # asked for of shadows only
            totals.dropped = int(value)
        case _:
            pass


@dataclass
class Reporter:
    """Reports twice a second, and at once when Envoy has taken up other routes.

    Args:
        admin: Asks Envoy.
        routing: Knows what was written for it.
        bus: Takes the reports.
        node_id: Of this gateway.
        incarnation: Of this gateway.
        waiting: Requests that wait for a sleeping deployment, by its name.
        shadowing: Compares answers.
    """

    admin: Admin
    routing: Routing
    bus: Bus
    node_id: str
    incarnation: str
    waiting: Mapping[str, int]
    shadowing: Shadowing
    _totals: dict[_Version, Totals] = field(default_factory=dict[_Version, Totals])
    _routes: str = ""
    _told: str = ""

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            self.routing.changed.clear()
            try:
                await self._report()
            except UnavailableError:
                _log.warning("envoy_not_asked")
            calm = self._told == self.routing.newest and not self.waiting
            pause_s = _INTERVAL_S if calm else _HURRY_S
            try:
                async with asyncio.timeout(pause_s):
                    await self.routing.changed.wait()
            except TimeoutError:
                continue

    async def _report(self) -> None:
        routes, totals = read_totals(await self.admin.samples(_NAMES))
        # Envoy's threads take routes up a moment after they are said to be in force: what is told
        # of them was asked for later.
        in_force, self._routes = self._routes, routes
        table = self.routing.written(in_force)
        if table is None or in_force != routes:
            return
        if in_force == self.routing.newest:
            warm = frozenset(key for key, counted in totals.items() if counted.healthy)
            self.routing.found_warm(warm)
        report = self._described(table, totals)
        self._totals, self._told = totals, in_force
        await self.bus.say(f"{SERVING}.{self.node_id}", report.SerializeToString())

    def _described(
        self, table: RouteTable, totals: Mapping[_Version, Totals]
    ) -> serving_pb2.ServingReport:
        report = serving_pb2.ServingReport(node_id=self.node_id, incarnation=self.incarnation)
        tallies = self.shadowing.take()
        for found in table.deployments:
            load = report.deployments.add(
                name=found.name,
                traffic_revision=found.traffic_revision,
                waiting=self.waiting.get(found.name, 0),
            )
            for (name, version), counted in totals.items():
                if name == found.name:
                    one = counted.since(self._totals.get((name, version), Totals()))
                    one.version = version
                    _add_tally(one, tallies.get((name, version), Tally()))
                    _measure(name, one)
                    load.versions.append(one)
        return report


def _add_tally(load: serving_pb2.VersionLoad, tally: Tally) -> None:
    load.compared_rows = tally.rows
    load.agreed_rows = tally.agreed
    load.unanswered_rows = tally.unanswered
    load.dropped += tally.dropped


def _measure(name: str, load: serving_pb2.VersionLoad) -> None:
    if not load.compared_rows and not load.dropped:
        return
    outcomes = {
        "agreed": load.agreed_rows,
        "disagreed": load.compared_rows - load.agreed_rows - load.unanswered_rows,
        "unanswered": load.unanswered_rows,
    }
    for outcome, rows in outcomes.items():
        _rows.labels(name, load.version, outcome).inc(rows)
    _dropped.labels(name, load.version).inc(load.dropped)
