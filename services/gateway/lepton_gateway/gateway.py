"""One gateway: its pages, its documents and its Envoy, from start to drain."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from grpc_health.v1 import health_pb2

from lepton_ai.http import HttpClient
from lepton_ai.proto.v1 import gateway_pb2, scheduler_pb2, storage_pb2
from lepton_gateway.app import App
from lepton_gateway.envoy.admin import Admin
from lepton_gateway.envoy.bootstrap import Listening, bootstrap
from lepton_gateway.envoy.clusters import Tls
from lepton_gateway.envoy.descriptors import base64_descriptors
from lepton_gateway.envoy.documents import DocumentFolder
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.envoy.process import Envoy
from lepton_gateway.mirror import Mirror
from lepton_gateway.openapi import openapi_document
from lepton_gateway.pages import PageServer
from lepton_gateway.queued.service import Queueing
from lepton_gateway.reporting import Reporter
from lepton_gateway.routing import Routing
from lepton_gateway.shadowing.app import Shadowing
from lepton_gateway.shadowing.asking import Asking
from lepton_gateway.waking import Waking
from lepton_runtime import keys
from lepton_runtime.bus import Bus
from lepton_runtime.cancellation import end
from lepton_runtime.clock import Clock
from lepton_runtime.relay import Relay
from lepton_runtime.state import State

__all__ = ["Engines", "Place", "running_gateway"]

_ADMIN_SOCKET = "admin"
_RELAY_SOCKET = "relay"
_GRACE_S = 1.0
# Of requests that are asked to compare answers; a version that takes longer does not answer them.
_PATIENCE_S = 10.0
_COMPARED_AT_ONCE = 32
# What reflection tells of beside inference.
_DESCRIBED = (
    gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name,
    scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name,
    storage_pb2.DESCRIPTOR.services_by_name["StorageService"].full_name,
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
)
_FOLLOWED = (keys.NODES, keys.DEPLOYMENTS, keys.TASKS, keys.TASK_STATUS, keys.REVOKED_KEYS)


@dataclass(frozen=True)
class Engines:
    """What a gateway stands on.

    Args:
        state: The truth.
        bus: Takes its reports.
        clock: Time.
        node_id: Its name.
        incarnation: Of this start of it.
    """

    state: State
    bus: Bus
    clock: Clock
    node_id: str
    incarnation: str


@dataclass(frozen=True)
class Place:
    """Where a gateway listens and what it uses.

    Args:
        host: Address that clients connect to.
        port: Port that clients connect to.
        grpc_port: The gateway's own gRPC server, on loopback.
        jwks: The public keys that tokens are checked with (JSON Web Key Set).
        data_dir: For Envoy's documents.
        tls: Shown to clients and to services; None for plain text.
        concurrency: Envoy's worker threads.
        drain_timeout_s: How long requests in progress may take at the end.
    """

    host: str
    port: int
    grpc_port: int
    jwks: Path
    data_dir: Path
    tls: Tls | None = None
    concurrency: int = 2
    drain_timeout_s: float = 10.0

    def listening(
        self, sockets: Path, folder: Path, app_port: int, relay_port: int, limits: Limits
    ) -> Listening:
        """What Envoy is started for."""
        return Listening(
            host=self.host,
            port=self.port,
            app_port=app_port,
            grpc_port=self.grpc_port,
            relay_port=relay_port,
            relay_path=str(sockets / _RELAY_SOCKET),
            admin_path=str(sockets / _ADMIN_SOCKET),
            folder=str(folder),
            jwks_path=str(self.jwks),
            descriptors=base64_descriptors(),
            limits=limits,
            tls=self.tls,
        )


@asynccontextmanager
async def running_gateway(
    engines: Engines, place: Place, limits: Limits, queueing: Queueing, *, version: str
) -> AsyncGenerator[None]:
    """A gateway that takes requests inside the block, and is drained and gone after it.

    Args:
        engines: What it stands on.
        place: Where it listens and what it uses.
        limits: What it refuses.
        queueing: Requests that wait.
        version: Of this software.

    Raises:
        NotFoundError: Envoy is not installed.
        UnavailableError: It does not start.
    """
    mirror, clock = Mirror(engines.state, _FOLLOWED), engines.clock
    folder = place.data_dir / "envoy"
    folder.mkdir(parents=True, exist_ok=True)
    documents = DocumentFolder(folder)
    # The path of a Unix socket may be no longer than about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="lepton-") as short:
        sockets = Path(short)
        asked = f"unix:{sockets / _RELAY_SOCKET}"
        http = HttpClient(asked, "", max_connections=_COMPARED_AT_ONCE)
        shadowing = Shadowing(lambda: routing.table, _asking(http, limits).ask, clock)
        shadows = PageServer(shadowing)
        routing = Routing(
            mirror, clock, documents, shadow_port=shadows.port, limits=limits, tls=place.tls
        )
        waking = _waking(routing, sockets / _RELAY_SOCKET, clock, limits)
        app = App(lambda: routing.table, waking, openapi_document(version), version)
        pages = PageServer(queueing.api(app, lambda: routing.table, clock))
        relay = Relay(asked, limits.max_request_bytes, limits.inference_timeout_s, _DESCRIBED)
        listening = place.listening(sockets, folder, pages.port, await relay.start(), limits)
        config = documents.replace("bootstrap.json", json.dumps(bootstrap(listening)).encode())
        admin = Admin(sockets / _ADMIN_SOCKET)
        envoy = Envoy(config, admin, clock, place.concurrency)
        reporter = _reporter(admin, routing, engines, waking, shadowing)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pages.run_until_stopped())
            tasks.create_task(shadows.run_until_stopped())
            following = tasks.create_task(mirror.follow())
            await routing.start()
            updating = tasks.create_task(routing.run())
            carrying = tasks.create_task(envoy.run())
            try:
                await envoy.wait_ready()
                patience_s = limits.inference_timeout_s + _GRACE_S
                working = queueing.run(asked, patience_s, lambda: routing.table, clock)
                dispatching = tasks.create_task(working)
                reporting = tasks.create_task(reporter.run())
                yield
                await end(dispatching)
                await end(reporting)
                await envoy.drain(place.drain_timeout_s)
            finally:
                pages.should_exit = shadows.should_exit = True
                http.close()
                await relay.stop(_GRACE_S)
                for task in (following, updating, carrying):
                    task.cancel()


def _asking(http: HttpClient, limits: Limits) -> Asking:
    return Asking(http, min(_PATIENCE_S, limits.inference_timeout_s))


def _waking(routing: Routing, envoy: Path, clock: Clock, limits: Limits) -> Waking:
    return Waking(
        table=lambda: routing.table,
        envoy=envoy,
        clock=clock,
        patience_s=limits.inference_timeout_s,
        capacity=limits.max_requests,
        tell=routing.changed.set,
    )


def _reporter(
    admin: Admin, routing: Routing, engines: Engines, waking: Waking, shadowing: Shadowing
) -> Reporter:
    return Reporter(
        admin=admin,
        routing=routing,
        bus=engines.bus,
        node_id=engines.node_id,
        incarnation=engines.incarnation,
        waiting=waking.waiting,
        shadowing=shadowing,
    )
