"""One gateway: its pages, its documents and its Envoy, from start to drain."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from grpc_health.v1 import health_pb2

from lepton_ai.http import HttpClient
from lepton_ai.proto.v1 import gateway_pb2, scheduler_pb2, storage_pb2
from lepton_gateway.app import App
from lepton_gateway.calls.own import OwnCalls
from lepton_gateway.calls.relay import Relay
from lepton_gateway.calls.serving import Caller, CallServer
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
from lepton_gateway.resending import Resender
from lepton_gateway.routing import Routing
from lepton_gateway.shadowing.app import Shadowing
from lepton_gateway.shadowing.asking import Asking
from lepton_gateway.waking import Waking
from lepton_runtime import keys
from lepton_runtime.bus import Bus
from lepton_runtime.cancellation import end
from lepton_runtime.clock import Clock
from lepton_runtime.oip import grpc_service_pb2
from lepton_runtime.state import State

__all__ = ["Engines", "Place", "running_gateway"]

_ADMIN_SOCKET = "admin"
_RELAY_SOCKET = "relay"
_GRACE_S = 1.0
# Of requests that are asked to compare answers; a version that takes longer does not answer them.
_PATIENCE_S = 10.0
_COMPARED_AT_ONCE = 32
# What reflection tells of.
_DESCRIBED = (
    grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
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


class _Ports(NamedTuple):
    """Of this gateway's own servers, on loopback."""

    app: int
    calls: int
    relay: int


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

    def listening(self, sockets: Path, folder: Path, ports: _Ports, limits: Limits) -> Listening:
        """What Envoy is started for."""
        return Listening(
            host=self.host,
            port=self.port,
            app_port=ports.app,
            calls_port=ports.calls,
            grpc_port=self.grpc_port,
            relay_port=ports.relay,
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
        caller = Caller(asked, limits.max_request_bytes)
        shadowing = Shadowing(lambda: routing.table, _asking(http, caller, limits).ask, clock)
        shadows = PageServer(shadowing)
        routing = Routing(
            mirror, clock, documents, shadow_port=shadows.port, limits=limits, tls=place.tls
        )
        waking = _waking(routing, clock, limits)
        resend = Resender(sockets / _RELAY_SOCKET).send
        app = App(lambda: routing.table, waking, resend, openapi_document(version), version)
        pages = PageServer(queueing.api(app, lambda: routing.table, clock))
        own = OwnCalls(lambda: routing.table, waking, caller, version)
        calls = _Calls(own, caller, limits)
        ports = _Ports(pages.port, *await calls.start())
        listening = place.listening(sockets, folder, ports, limits)
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
                await calls.stop()
                for task in (following, updating, carrying):
                    task.cancel()


class _Calls:
    """What takes calls from Envoy.

    Args:
        own: Answers those that no replica answers.
        caller: Makes calls to Envoy for all of them.
        limits: What is refused.
    """

    def __init__(self, own: OwnCalls, caller: Caller, limits: Limits) -> None:
        self._caller = caller
        self._own = CallServer(own, limits.max_request_bytes)
        relay = Relay(caller, limits.inference_timeout_s)
        self._relay = CallServer(relay, limits.max_request_bytes, _DESCRIBED)

    async def start(self) -> tuple[int, int]:
        """Listen, and return the ports for what is answered here and for what is relayed."""
        return await self._own.start(), await self._relay.start()

    async def stop(self) -> None:
        """Let calls under way finish for a moment."""
        await self._relay.stop(_GRACE_S)
        await self._own.stop(_GRACE_S)
        await self._caller.close()


def _asking(http: HttpClient, caller: Caller, limits: Limits) -> Asking:
    return Asking(http, caller, min(_PATIENCE_S, limits.inference_timeout_s))


def _waking(routing: Routing, clock: Clock, limits: Limits) -> Waking:
    return Waking(
        table=lambda: routing.table,
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
