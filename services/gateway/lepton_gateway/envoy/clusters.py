"""Groups of servers that can stand in for each other, and how the dead are told from the living."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lepton_gateway.envoy.limits import Limits
from lepton_gateway.envoy.names import (
    APP_CLUSTER,
    CALLS_CLUSTER,
    DATA_CLUSTER,
    GATEWAY_CLUSTER,
    RELAY_CLUSTER,
    SCHEDULER_CLUSTER,
    STORAGE_CLUSTER,
    file_source,
    shadow_cluster,
    typed,
    version_cluster,
)
from lepton_gateway.table import RouteTable, Shadow

__all__ = ["Tls", "endpoints", "endpoints_file", "local_clusters", "remote_clusters"]

_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Of the requests under way, so that no overload is made worse. Below the least of them losing one
# of two replicas, which makes half of all requests begin anew at once, costs nobody an answer.
_RETRY_BUDGET = {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 128}
# Requests to compare answers by that are under way, and as many that wait. Of what comes beyond
# them Envoy makes no copy, and counts it.
_MIRRORED_AT_ONCE = 8
# A client that does not read its answer holds up no other one on the connection they share.
_ANSWER_WINDOWS = {
    "initial_stream_window_size": 1024 * 1024,
    "initial_connection_window_size": 2**31 - 1,
}
# Only failures of the connection eject, never answers: 500 is an input's fault, 504 a client's
# short deadline, and 429 and 503 are the health check's business.
_OUTLIER_DETECTION = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 2,
    "enforcing_consecutive_local_origin_failure": 100,
    "enforcing_consecutive_5xx": 0,
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_success_rate": 0,
    "enforcing_local_origin_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "2s",
    "max_ejection_percent": 50,
}


@dataclass(frozen=True)
class Tls:
    """Files (PEM) that the services of a cluster know each other by: mutual TLS.

    Args:
        certificate: This gateway's own.
        key: Its private key.
        authority: Signed the certificates of all services.
    """

    certificate: str
    key: str
    authority: str


def local_clusters(
    app_port: int, calls_port: int, grpc_port: int, relay_port: int
) -> list[dict[str, Any]]:
    """The gateway's own servers, on loopback."""
    return [
        _local_cluster(APP_CLUSTER, app_port),
        _local_cluster(CALLS_CLUSTER, calls_port) | _speaks_http2(),
        _local_cluster(GATEWAY_CLUSTER, grpc_port) | _speaks_http2(),
        _local_cluster(RELAY_CLUSTER, relay_port) | _speaks_http2(),
    ]


def remote_clusters(
    table: RouteTable, folder: str, shadow_port: int, limits: Limits, tls: Tls | None
) -> list[dict[str, Any]]:
    """One cluster for each version of a deployment that answers, and those of the services.

    Args:
        table: What there is.
        folder: Where the files named by `endpoints_file` lie.
        shadow_port: Where answers are compared, on loopback.
        limits: Bounds on requests.
        tls: How to reach them; None for plain text.
    """
    clusters = [
        *(_replicas_cluster(group.name, group.version, limits) for group in table.groups),
        _service_cluster(SCHEDULER_CLUSTER, limits),
        _service_cluster(STORAGE_CLUSTER, limits),
        _data_cluster(limits),
    ]
    for cluster in clusters:
        path = f"{folder}/{endpoints_file(cluster['name'])}"
        cluster["eds_cluster_config"] = {"eds_config": file_source(path)}
        if tls is not None:
            cluster["transport_socket"] = _client_tls(tls)
    return clusters + [
        _shadow_cluster(found.name, found.shadow, shadow_port)
        for found in table.deployments
        if found.shadow is not None
    ]


def endpoints(table: RouteTable) -> dict[str, dict[str, Any]]:
    """A `ClusterLoadAssignment` for each remote cluster, by the cluster's name.

    The addresses of the table must hold IP addresses, not names.
    """
    members = {
        version_cluster(group.name, group.version): list(group.addresses) for group in table.groups
    }
    members[SCHEDULER_CLUSTER] = list(table.schedulers)
    members[STORAGE_CLUSTER] = list(table.storage_nodes)
    members[DATA_CLUSTER] = list(table.data_nodes)
    return {name: _assignment(name, addresses) for name, addresses in members.items()}


def endpoints_file(cluster: str) -> str:
    """The file that holds a cluster's endpoints. Cluster names never hold a dot."""
    return f"eds.{cluster.replace('/', '.')}.json"


def _replicas_cluster(name: str, version: int, limits: Limits) -> dict[str, Any]:
    replicas = _cluster(version_cluster(name, version), limits) | {
        "health_checks": [_model_check(name, version)],
        "outlier_detection": _OUTLIER_DETECTION,
    }
    # Also where a client speaks HTTP/1.1: requests and answers then share reads and writes.
    return replicas | _speaks_http2(_ANSWER_WINDOWS)


def _service_cluster(name: str, limits: Limits) -> dict[str, Any]:
    return _cluster(name, limits) | {"health_checks": [_port_check()]} | _speaks_http2()


def _data_cluster(limits: Limits) -> dict[str, Any]:
    return _cluster(DATA_CLUSTER, limits) | {"health_checks": [_port_check()]}


def _port_check() -> dict[str, Any]:
    return {**_check_times(), "tcp_health_check": {}}


def _cluster(name: str, limits: Limits) -> dict[str, Any]:
    bounds = {
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_requests,
        "max_requests": limits.max_requests,
        "retry_budget": _RETRY_BUDGET,
    }
    return {
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [bounds]},
        # A server taken out of the table gets no further request, healthy or not.
        "ignore_health_on_host_removal": True,
        "common_lb_config": {
            # With all of them thought dead, trying one is better than refusing.
            "healthy_panic_threshold": {"value": 1.0},
            "ignore_new_hosts_until_first_hc": True,
            # What is learnt of a host counts at once; by default it waits for up to a second.
            "update_merge_window": "0s",
        },
    }


def _model_check(name: str, version: int) -> dict[str, Any]:
    path = f"/v2/models/{name}/versions/{version}/ready"
    return {**_check_times(), "http_health_check": {"path": path}}


def _check_times() -> dict[str, Any]:
    return {
        "timeout": "2s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
    }


def _local_cluster(name: str, port: int) -> dict[str, Any]:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": _assignment(name, [f"127.0.0.1:{port}"]),
    }


def _shadow_cluster(name: str, shadow: Shadow, port: int) -> dict[str, Any]:
    bounds = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests"), _MIRRORED_AT_ONCE
    )
    cluster = _local_cluster(shadow_cluster(name, shadow.version), port)
    return cluster | {"circuit_breakers": {"thresholds": [bounds]}}


def _speaks_http2(windows: Mapping[str, int] = MappingProxyType({})) -> dict[str, Any]:
    spoken = {"http2_protocol_options": dict(windows)}
    options = typed(_PROTOCOL_OPTIONS, explicit_http_config=spoken)
    return {"typed_extension_protocol_options": {_PROTOCOL_OPTIONS: options}}


def _assignment(name: str, addresses: list[str]) -> dict[str, Any]:
    members = [{"endpoint": {"address": _address(address)}} for address in addresses]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]}


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _client_tls(tls: Tls) -> dict[str, Any]:
    chain = {
        "certificate_chain": {"filename": tls.certificate},
        "private_key": {"filename": tls.key},
    }
    context = {
        "tls_certificates": [chain],
        "validation_context": {"trusted_ca": {"filename": tls.authority}},
    }
    return {
        "name": "tls",
        "typed_config": typed(
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            common_tls_context=context,
        ),
    }
