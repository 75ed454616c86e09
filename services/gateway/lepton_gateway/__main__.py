"""`python -m lepton_gateway`: the gateway as a process."""

from __future__ import annotations

from importlib.metadata import version

import structlog

from lepton_ai.proto.v1 import gateway_pb2, gateway_pb2_grpc, node_pb2
from lepton_gateway.envoy.clusters import Tls
from lepton_gateway.gateway import Engines, Place, running_gateway
from lepton_gateway.queued.service import opened_queue
from lepton_gateway.servicer import GatewayServicer
from lepton_gateway.settings import GatewaySettings
from lepton_runtime.auth import TokenSigner
from lepton_runtime.membership import join
from lepton_runtime.server import GrpcServer, Servicer
from lepton_runtime.service import Runtime, run

_LOOPBACK = "127.0.0.1"
_GRACE_S = 1.0
_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.gateway")


async def main(settings: GatewaySettings, runtime: Runtime) -> None:
    """Carry requests until told to stop."""
    release = version("lepton-ai")
    signer = TokenSigner(settings.signing_key)
    servicer = GatewayServicer(runtime.state, signer, runtime.clock, release)
    service = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"]
    add = gateway_pb2_grpc.add_GatewayServiceServicer_to_server
    # Only Envoy talks to it, and never over a network: no TLS.
    server = GrpcServer([Servicer(servicer, add, service)], runtime.verifier, None)
    place = _place(settings, await server.start(_LOOPBACK, 0))
    queueing = await opened_queue(
        runtime.queues, runtime.verifier, settings.signing_key, settings.queueing
    )
    try:
        engines = Engines(
            runtime.state, runtime.bus, runtime.clock, settings.node_id, runtime.incarnation
        )
        async with running_gateway(engines, place, settings.limits, queueing, version=release):
            await _be_member(settings, runtime)
    finally:
        await server.drain(_GRACE_S)


async def _be_member(settings: GatewaySettings, runtime: Runtime) -> None:
    """Be found by others until told to stop."""
    address = f"{settings.reachable_host}:{settings.port}"
    node = runtime.node(node_pb2.NODE_ROLE_GATEWAY, address)
    membership = await join(runtime.state, node, settings.lease_ttl_s)
    _log.info("ready", address=address, role="NODE_ROLE_GATEWAY")
    try:
        await runtime.stopping.wait()
    finally:
        await membership.leave()


def _place(settings: GatewaySettings, grpc_port: int) -> Place:
    return Place(
        host=settings.host,
        port=settings.port,
        grpc_port=grpc_port,
        jwks=settings.keys_dir.absolute() / "jwks.json",
        data_dir=settings.data_dir.absolute(),
        tls=_tls(settings),
        concurrency=settings.envoy_concurrency,
        drain_timeout_s=settings.drain_timeout_s,
    )


def _tls(settings: GatewaySettings) -> Tls | None:
    files = settings.tls_certificate, settings.tls_key, settings.tls_authority
    given = [str(path.absolute()) for path in files if path is not None]
    # The settings refuse one without the others.
    return Tls(*given) if given else None


if __name__ == "__main__":
    run(GatewaySettings, main)
