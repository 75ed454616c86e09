"""Which request goes to which cluster, and which may be sent twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lepton_ai.oip.messages import INFERENCE_SERVICE
from lepton_gateway.calls.relay import relayed_matches
from lepton_gateway.envoy.filters import CALLS, INFERENCE, TRANSCODED, refuse_keys
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.envoy.lua import MODEL_HEADER
from lepton_gateway.envoy.names import (
    APP_CLUSTER,
    CALLS_CLUSTER,
    DATA_CLUSTER,
    GATEWAY_CLUSTER,
    RELAY_CLUSTER,
    ROUTES,
    SCHEDULER_CLUSTER,
    STORAGE_CLUSTER,
    duration,
    shadow_cluster,
    typed,
    version_cluster,
)
from lepton_gateway.queued.api import SUBMIT_PATH
from lepton_gateway.table import RoutedDeployment, RouteTable
from lepton_runtime.headers import VERSION_HEADER

__all__ = ["route_configuration"]

_HEALTH_GRPC = "/grpc.health.v1.Health/"
_REQUESTS = "/v2/requests/"
_MODELS = "/v2/models/"
_LARGEST = 2**63 - 1
# The last differs from client to client, and so would the heads of their requests.
_UNSAID = ["authorization", MODEL_HEADER, "x-envoy-external-address"]
_SERVICES = {
    "SchedulerService": SCHEDULER_CLUSTER,
    "StorageService": STORAGE_CLUSTER,
    "GatewayService": GATEWAY_CLUSTER,
}
# A replica that died has the fewest requests under way: among two, three of four choices fall on it
# again. So many leave a retry odds of one in ten thousand to get there.
_CHOICES = 32
_ANOTHER_HOST = [
    {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": typed(
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        ),
    }
]
# Inference changes nothing, so whatever breaks on the way may be tried again elsewhere; 429 and
# 503, or what gRPC calls them, were answered before any work. Not 500: the model failed on this
# very input.
_INFERENCE_RETRY = {
    "retry_on": "connect-failure,reset,refused-stream,retriable-status-codes"
    ",resource-exhausted,unavailable",
    "retriable_status_codes": [429, 503],
    "num_retries": 1,
    "retry_host_predicate": _ANOTHER_HOST,
    "host_selection_retry_max_attempts": _CHOICES,
    "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.25s"},
}
# Management calls may change something: again only if the first try never reached a service.
_MANAGEMENT_RETRY = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 3,
    "retry_host_predicate": _ANOTHER_HOST,
    "host_selection_retry_max_attempts": _CHOICES,
}


def route_configuration(table: RouteTable, limits: Limits) -> dict[str, Any]:
    """The `RouteConfiguration` of the one listener.

    A deployment without replicas goes to the gateway itself, as everything else does: it holds
    requests for what sleeps, and says of the others how they stand.
    """
    routes = [
        _too_large_route(limits),
        *(_route(match, _streaming_action(RELAY_CLUSTER)) for match in relayed_matches()),
        _submission_route(),
        _route({"prefix": _REQUESTS}, _streaming_action(APP_CLUSTER)),
        *(route for found in table.deployments for route in _deployment_routes(found, limits)),
        _call_route({"prefix": INFERENCE_SERVICE}, {"cluster": CALLS_CLUSTER}, limits),
        _route({"prefix": _HEALTH_GRPC}, {"cluster": CALLS_CLUSTER}),
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


def _too_large_route(limits: Limits) -> dict[str, Any]:
    """Refuses what says it is too large before a byte of it is buffered."""
    too_large = {"start": limits.max_request_bytes + 1, "end": _LARGEST}
    match = {"prefix": _MODELS, "headers": [{"name": "content-length", "range_match": too_large}]}
    return {"match": match, "direct_response": {"status": 413}}


def _submission_route() -> dict[str, Any]:
    """To the gateway's app, which puts it into the queue."""
    action = {"cluster": APP_CLUSTER}
    match = {"safe_regex": {"regex": SUBMIT_PATH}}
    return _route(match, action, typed_per_filter_config=INFERENCE)


def _deployment_routes(deployment: RoutedDeployment, limits: Limits) -> Iterable[dict[str, Any]]:
    """Requests that name a version go there; the others by the deployment's shares."""
    name, path = deployment.name, f"{_MODELS}{deployment.name}"
    for version in deployment.versions:
        action = _inference_action(deployment, [(version, 1)], limits)
        yield _rest_route(f"{path}/versions/{version}", action)
        yield _named_call_route({"exact": f"{name}/{version}"}, action, limits)
    if deployment.weights:
        action = _inference_action(deployment, deployment.weights, limits) | _mirrored(deployment)
        yield _rest_route(path, action)
        yield _named_call_route({"prefix": f"{name}/"}, action, limits)
    elif deployment.sleeps:
        held = {"timeout": duration(limits.inference_timeout_s)}
        yield _rest_route(path, {"cluster": APP_CLUSTER, **held})
        yield _named_call_route({"prefix": f"{name}/"}, {"cluster": CALLS_CLUSTER, **held}, limits)


def _rest_route(prefix: str, action: dict[str, Any]) -> dict[str, Any]:
    match = {"path_separated_prefix": prefix}
    return _route(match, action, typed_per_filter_config=INFERENCE, **_unsaid(action))


def _named_call_route(
    name: dict[str, str], action: dict[str, Any], limits: Limits
) -> dict[str, Any]:
    named = {"name": MODEL_HEADER, "string_match": name}
    match = {"prefix": INFERENCE_SERVICE, "headers": [named]}
    return _call_route(match, action, limits) | _unsaid(action)


def _call_route(match: dict[str, Any], action: dict[str, Any], limits: Limits) -> dict[str, Any]:
    return _route(
        match | {"grpc": {}},
        action,
        typed_per_filter_config=CALLS,
        request_body_buffer_limit=limits.max_request_bytes,
    )


def _unsaid(action: dict[str, Any]) -> dict[str, Any]:
    """Replicas need no keys of clients; what is mirrored or held is asked again with its key."""
    once = "weighted_clusters" in action and "request_mirror_policies" not in action
    return {"request_headers_to_remove": _UNSAID} if once else {}


def _inference_action(
    deployment: RoutedDeployment, weights: Iterable[tuple[int, int]], limits: Limits
) -> dict[str, Any]:
    name = deployment.name
    return {
        "weighted_clusters": {"clusters": [_share(name, *weight) for weight in weights]},
        "timeout": duration(limits.inference_timeout_s),
        "retry_policy": _INFERENCE_RETRY,
        **_hedged(deployment.hedge_after_s),
    }


def _hedged(after_s: float) -> dict[str, Any]:
    """A slow try goes on while another one is made; retries and their budget count it."""
    if not after_s:
        return {}
    return {
        "retry_policy": _INFERENCE_RETRY | {"per_try_timeout": duration(after_s)},
        "hedge_policy": {"hedge_on_per_try_timeout": True},
    }


def _mirrored(deployment: RoutedDeployment) -> dict[str, Any]:
    """A copy of some requests goes where answers are compared. Nobody waits for it."""
    shadow = deployment.shadow
    if shadow is None or shadow.version not in deployment.versions:
        return {}
    fraction = {"default_value": {"numerator": shadow.percent, "denominator": "HUNDRED"}}
    cluster = shadow_cluster(deployment.name, shadow.version)
    return {"request_mirror_policies": [{"cluster": cluster, "runtime_fraction": fraction}]}


def _share(name: str, version: int, weight: int) -> dict[str, Any]:
    # A server that has several versions is told which of them was chosen.
    header = {"header": {"key": VERSION_HEADER, "value": str(version)}}
    return {
        "name": version_cluster(name, version),
        "weight": weight,
        "request_headers_to_add": [header | {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
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
