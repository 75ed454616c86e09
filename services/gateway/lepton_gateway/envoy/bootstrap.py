"""What Envoy is started with. All that changes while it runs is read from other files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lepton_gateway.envoy.clusters import Tls, local_clusters
from lepton_gateway.envoy.filters import http_filters
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.envoy.local_replies import local_reply_config
from lepton_gateway.envoy.names import ROUTES, file_source, typed

__all__ = ["CLUSTERS_FILE", "ROUTES_FILE", "Listening", "bootstrap"]

CLUSTERS_FILE = "cds.json"
ROUTES_FILE = "rds.json"
_CONNECTION_BUFFER_BYTES = 1024 * 1024
_STREAM_WINDOW_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Listening:
    """What one Envoy is started for.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        app_port: The gateway's own HTTP server, on loopback.
        calls_port: The server of calls that no replica answers, on loopback.
        grpc_port: The gateway's own gRPC server, on loopback.
        relay_port: The server of streams and compressed messages, on loopback.
        relay_path: Unix socket on which that server asks Envoy, in plain text.
        admin_path: Unix socket of Envoy's administration, for the gateway alone.
        folder: Where the files that change lie.
        jwks_path: The public keys that tokens are checked with.
        descriptors: Base64 of the descriptors of every service.
        limits: What is refused.
        tls: Certificate shown to clients; None for plain text.
    """

    host: str
    port: int
    app_port: int
    calls_port: int
    grpc_port: int
    relay_port: int
    relay_path: str
    admin_path: str
    folder: str
    jwks_path: str
    descriptors: str
    limits: Limits
    tls: Tls | None = None


def bootstrap(listening: Listening) -> dict[str, Any]:
    """The document that Envoy is started with."""
    return {
        "node": {"id": "gateway", "cluster": "lepton"},
        "admin": {"address": {"pipe": {"path": listening.admin_path, "mode": 0o600}}},
        "dynamic_resources": {
            "cds_config": file_source(f"{listening.folder}/{CLUSTERS_FILE}"),
        },
        "static_resources": {
            "listeners": [_listener(listening), _relay_listener(listening)],
            "clusters": local_clusters(
                listening.app_port,
                listening.calls_port,
                listening.grpc_port,
                listening.relay_port,
            ),
        },
        # Until then the sums of histograms lag behind the counters.
        "stats_flush_interval": "0.25s",
        "overload_manager": _overload_manager(listening.limits),
    }


def _listener(listening: Listening) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": [_connection_manager(listening)]}
    if listening.tls is not None:
        chain["transport_socket"] = _server_tls(listening.tls)
    address = {"address": listening.host, "port_value": listening.port}
    return {
        "name": "clients",
        "address": {"socket_address": address},
        # Two on one port would both start, and share the clients.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": _CONNECTION_BUFFER_BYTES,
        "filter_chains": [chain],
    }


def _relay_listener(listening: Listening) -> dict[str, Any]:
    """Asks for keys like the other: what comes here carries its caller's."""
    return {
        "name": "relay",
        "address": {"pipe": {"path": listening.relay_path, "mode": 0o600}},
        "per_connection_buffer_limit_bytes": _CONNECTION_BUFFER_BYTES,
        "filter_chains": [{"filters": [_connection_manager(listening)]}],
    }


def _connection_manager(listening: Listening) -> dict[str, Any]:
    return {
        "name": "http",
        "typed_config": typed(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix="clients",
            codec_type="AUTO",
            rds={
                "route_config_name": ROUTES,
                "config_source": file_source(f"{listening.folder}/{ROUTES_FILE}"),
            },
            http_filters=http_filters(listening.jwks_path, listening.descriptors, listening.limits),
            local_reply_config=local_reply_config(),
            server_name="lepton",
            use_remote_address=True,
            # Nobody behind reads these, and each would make every request another one to compress
            # and to parse.
            generate_request_id=False,
            skip_xff_append=True,
            normalize_path=True,
            merge_slashes=True,
            path_with_escaped_slashes_action="REJECT_REQUEST",
            # A client that opens a request and says no more holds nothing for long.
            request_headers_timeout="10s",
            common_http_protocol_options={"idle_timeout": "3600s"},
            http2_protocol_options={
                "max_concurrent_streams": 1024,
                "initial_stream_window_size": _STREAM_WINDOW_BYTES,
                "initial_connection_window_size": 16 * _STREAM_WINDOW_BYTES,
                "connection_keepalive": {"interval": "30s", "timeout": "10s"},
            },
        ),
    }


def _server_tls(tls: Tls) -> dict[str, Any]:
    chain = {
        "certificate_chain": {"filename": tls.certificate},
        "private_key": {"filename": tls.key},
    }
    return {
        "name": "tls",
        "typed_config": typed(
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={"tls_certificates": [chain], "alpn_protocols": ["h2", "http/1.1"]},
        ),
    }


def _overload_manager(limits: Limits) -> dict[str, Any]:
    config = typed(
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=limits.max_connections,
    )
    name = "envoy.resource_monitors.global_downstream_max_connections"
    return {"resource_monitors": [{"name": name, "typed_config": config}]}
