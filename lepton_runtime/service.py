"""The life of a service: settings, connections, ready, signals, drain."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

import structlog
import uvloop
from pydantic import ValidationError

from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1 import node_pb2
from lepton_runtime.auth import TokenVerifier
from lepton_runtime.bus import Bus
from lepton_runtime.clock import Clock, SystemClock
from lepton_runtime.etcd import EtcdState
from lepton_runtime.membership import Membership, join
from lepton_runtime.nats import NatsBus
from lepton_runtime.processes import die_with_parent
from lepton_runtime.queues import Queues
from lepton_runtime.server import GrpcServer, Servicer
from lepton_runtime.settings import RuntimeSettings
from lepton_runtime.state import State
from lepton_runtime.telemetry import configure_logging, serve_metrics

__all__ = ["Runtime", "run", "serving"]

_log = structlog.get_logger("lepton.service")
_GRACE_S = 3.0
_SettingsT = TypeVar("_SettingsT", bound=RuntimeSettings)


@dataclass(frozen=True)
class Runtime:
    """What every service stands on, built once."""

    settings: RuntimeSettings
    state: State
    bus: Bus
    queues: Queues
    clock: Clock
    verifier: TokenVerifier
    stopping: asyncio.Event
    incarnation: str

    def node(self, role: node_pb2.NodeRole, address: str) -> node_pb2.Node:
        """This node's record, for services to complete."""
        node = node_pb2.Node(
            id=self.settings.node_id,
            role=role,
            incarnation=self.incarnation,
            address=address,
            labels=self.settings.labels,
            version=version("lepton-ai"),
        )
        node.started_at.FromNanoseconds(int(self.clock.now() * 1e9))
        return node


def run(
    settings_type: type[_SettingsT], main: Callable[[_SettingsT, Runtime], Awaitable[None]]
) -> None:
    """Entry of every `__main__`: run `main` until a signal or an error.

    The process dies with its parent, and exits 2 where its settings are wrong, 1 where it
    could not start or go on; each with one line that says why.
    """
    die_with_parent()
    try:
        settings = settings_type()  # pyright: ignore[reportCallIssue] - from the environment
    except ValidationError as error:
        sys.stderr.write(f"settings: {_readable(error)}\n")
        raise SystemExit(2) from None
    configure_logging(settings.log_format, settings.node_id)
    try:
        uvloop.run(_run(settings, main))
    except* LeptonError as group:
        for error in _leaves(group):
            _log.error("stopped", reason=str(error))
        raise SystemExit(1) from None


@contextlib.asynccontextmanager
async def serving(
    runtime: Runtime,
    servicers: Sequence[Servicer],
    role: node_pb2.NodeRole,
    own: node_pb2.Node | None = None,
) -> AsyncGenerator[Membership]:
    """Answer calls and be a member of the cluster; leave and drain at the end.

    Args:
        runtime: What the service stands on.
        servicers: What it answers with.
        role: What it contributes.
        own: Further facts for its record.
    """
    settings = runtime.settings
    server = GrpcServer(servicers, runtime.verifier, settings.tls)
    port = await server.start(settings.host, settings.port)
    address = f"{settings.reachable_host}:{port}"
    node = runtime.node(role, address)
    node.MergeFrom(own or node_pb2.Node())
    membership = await join(runtime.state, node, settings.lease_ttl_s)
    _log.info("ready", address=address, role=node_pb2.NodeRole.Name(role))
    try:
        yield membership
    finally:
        await membership.leave()
        await server.drain(_GRACE_S)


async def _run(
    settings: _SettingsT, main: Callable[[_SettingsT, Runtime], Awaitable[None]]
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if settings.metrics_port is not None:
        serve_metrics(settings.host, settings.metrics_port)
    state = EtcdState(settings.etcd_endpoints, settings.channel_credentials)
    bus = await NatsBus.connect(settings.nats_servers, settings.tls)
    runtime = Runtime(
        settings=settings,
        state=state,
        bus=bus,
        queues=bus.queues,
        clock=SystemClock(),
        verifier=TokenVerifier(settings.jwks),
        stopping=stopping,
        incarnation=uuid.uuid4().hex,
    )
    try:
        await main(settings, runtime)
    finally:
        await bus.close()
        await state.close()


def _leaves(group: BaseExceptionGroup[LeptonError]) -> list[LeptonError]:
    leaves: list[LeptonError] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


def _readable(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, entry['loc'])) or 'all'}: {entry['msg']}" for entry in error.errors()
    )
