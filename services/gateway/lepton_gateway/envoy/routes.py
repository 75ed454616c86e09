"""Which request goes to which cluster, and which may be sent twice."""

from __future__ import annotations

from typing import Any

from lepton_gateway.envoy.filters import GRPC_INFERENCE, INFERENCE, TRANSCODED, refuse_keys
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.envoy.lua import MODEL_HEADER
from lepton_gateway.envoy.names import (
    APP_CLUSTER,
    DATA_CLUSTER,
    GATEWAY_CLUSTER,
    RELAY_CLUSTER,
    ROUTES,
    SCHEDULER_CLUSTER,
    STORAGE_CLUSTER,
    deployment_cluster,
    duration,
    typed,
)
from lepton_gateway.queued.api import SUBMIT_PATH
from lepton_gateway.table import RouteTable
from lepton_runtime.relay import relayed_matches

__all__ = ["route_configuration"]

_OIP_GRPC = "/inference.GRPCInferenceService/"
_HEALTH_GRPC = "/grpc.health.v1.Health/"
_REQUESTS = "/v2/requests/"
_SERVICES = {
    "SchedulerService": SCHEDULER_CLUSTER,
    "StorageService": STORAGE_CLUSTER,
    "GatewayService": GATEWAY_CLUSTER,
}
_ANOTHER_HOST = [
    {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": typed(
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        ),
    }
]
# Inference changes nothing, so whatever breaks on the way may be tried again elsewhere; 429 and
# 503 were answered before any work. Not 500: the model failed on this very input.
_INFERENCE_RETRY = {
    "retry_on": "connect-failure,reset,refused-stream,retriable-status-codes",
    "retriable_status_codes": [429, 503],
    "num_retries": 5,
    "retry_host_predicate": _ANOTHER_HOST,
    "host_selection_retry_max_attempts": 5,
    "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.25s"},
}
# Management calls may change something: again only if the first try never reached a service.
_MANAGEMENT_RETRY = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 3,
    "retry_host_predicate": _ANOTHER_HOST,
    "host_selection_retry_max_attempts": 5,
}


def route_configuration(table: RouteTable, limits: Limits) -> dict[str, Any]:
    """The `RouteConfiguration` of the one listener.

    A deployment without replicas has no route of its own: the gateway's app, which everything
    else falls to, says how it stands.
    """
    answering = [found.name for found in table.deployments if found.replicas]
    routes = [
        *(_route(match, _streaming_action(RELAY_CLUSTER)) for match in relayed_matches()),
        _submission_route(),
        _route({"prefix": _REQUESTS}, _streaming_action(APP_CLUSTER)),
        *(_rest_route(name, limits) for name in answering),
        *(_grpc_route(name, limits) for name in answering),
        *(_bridged_app_route(prefix) for prefix in (_OIP_GRPC, _HEALTH_GRPC)),
        *(_service_route(service, cluster) for service, cluster in _SERVICES.items()),
        _data_route(limits),
        # The transcoder makes a gRPC call of what it knows, which is routed anew.
        _route({"prefix": "/v1/"}, {"cluster": APP_CLUSTER}, typed_per_filter_config=TRANSCODED),
        _route({"prefix": "/"}, {"cluster": APP_CLUSTER}),
    ]
    return {
        "name": ROUTES,
        "virtual_hosts": [
            {
                "name": "lepton",
                "domains": ["*"],
                "routes": routes,
                "typed_per_filter_config": refuse_keys(table.revoked_keys),
            }
        ],
    }


def _submission_route() -> dict[str, Any]:
    """To the gateway's app, which puts it into the queue."""
    action = {"cluster": APP_CLUSTER}
    match = {"safe_regex": {"regex": SUBMIT_PATH}}
    return _route(match, action, typed_per_filter_config=INFERENCE)


def _rest_route(name: str, limits: Limits) -> dict[str, Any]:
    match = {"path_separated_prefix": f"/v2/models/{name}"}
    return _route(match, _inference_action(name, limits), typed_per_filter_config=INFERENCE)


def _grpc_route(name: str, limits: Limits) -> dict[str, Any]:
    wanted = {"name": MODEL_HEADER, "string_match": {"exact": name}}
    match = {"prefix": _OIP_GRPC, "headers": [wanted]}
    return _route(match, _inference_action(name, limits), typed_per_filter_config=GRPC_INFERENCE)


def _bridged_app_route(prefix: str) -> dict[str, Any]:
    action = {"cluster": APP_CLUSTER}
    return _route({"prefix": prefix}, action, typed_per_filter_config=GRPC_INFERENCE)


def _inference_action(name: str, limits: Limits) -> dict[str, Any]:
    return {
        "cluster": deployment_cluster(name),
        "timeout": duration(limits.inference_timeout_s),
        "retry_policy": _INFERENCE_RETRY,
    }


def _data_route(limits: Limits) -> dict[str, Any]:
    action = {
        "cluster": DATA_CLUSTER,
        "timeout": duration(limits.transfer_timeout_s),
        "retry_policy": _MANAGEMENT_RETRY,
    }
    return _route({"prefix": "/data/"}, action)


def _service_route(service: str, cluster: str) -> dict[str, Any]:
    return _route({"prefix": f"/lepton_ai.proto.v1.{service}/"}, _streaming_action(cluster))


def _streaming_action(cluster: str) -> dict[str, Any]:
    return {
        "cluster": cluster,
        # Streams last as long as what they follow; a client's deadline still counts.
        "timeout": "0s",
        "idle_timeout": "0s",
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
        "retry_policy": _MANAGEMENT_RETRY,
    }


def _route(match: dict[str, Any], action: dict[str, Any], **extra: Any) -> dict[str, Any]:
    return {"match": match, "route": action, **extra}
