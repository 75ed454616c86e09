"""The chain of HTTP filters: who may pass, and how inference and REST calls are changed.

Filters that only some requests need are off unless a request's route turns them on.
"""

from __future__ import annotations

from typing import Any

from lepton_gateway.envoy import lua
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.envoy.names import JWT_METADATA, TYPE, typed

__all__ = ["CALLS", "INFERENCE", "TRANSCODED", "http_filters", "refuse_keys"]

_HTTP = "envoy.extensions.filters.http"
_JWT = f"{_HTTP}.jwt_authn.v3"
_RBAC = f"{_HTTP}.rbac.v3"
_RBAC_NAME = "refused-keys"
# Liveness and readiness say nothing of the cluster's content, and the description of the
# interface is the same for every cluster.
_OPEN_PATHS = ("/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json")
_ROLES = {"start": 1.0, "end": 6.0}


def _turned_on(*names: str) -> dict[str, Any]:
    kind = f"{TYPE}envoy.config.route.v3.FilterConfig"
    return {name: {"@type": kind, "config": {}} for name in names}


# What a route adds to its `typed_per_filter_config`.
INFERENCE = _turned_on("buffer")
CALLS = _turned_on("model-name", "outcomes")
TRANSCODED = _turned_on("json-errors", "transcoder")


def http_filters(jwks_path: str, descriptors: str, limits: Limits) -> list[dict[str, Any]]:
    """The chain, in the order in which a request passes it.

    Args:
        jwks_path: The public keys that tokens are checked with.
        descriptors: Base64 of the descriptors of every service.
        limits: What is refused for its size.
    """
    return [
        _filter("keys", _jwt(jwks_path)),
        _filter(_RBAC_NAME, typed(f"{_RBAC}.RBAC")),
        _off(
            "buffer",
            typed(f"{_HTTP}.buffer.v3.Buffer", max_request_bytes=limits.max_request_bytes),
        ),
        _off("model-name", _lua(lua.MODEL_NAME)),
        # Counts for each cluster how calls ended, which HTTP's status does not tell.
        _off("outcomes", typed(f"{_HTTP}.grpc_stats.v3.FilterConfig", stats_for_all_methods=False)),
        _off("json-errors", _lua(lua.JSON_ERRORS)),
        _off("transcoder", _transcoder(descriptors)),
        _filter("router", typed(f"{_HTTP}.router.v3.Router")),
    ]


def refuse_keys(ids: tuple[str, ...]) -> dict[str, Any]:
    """For a virtual host: refuses revoked keys, and keys without a role.

    On the virtual host and not in the chain, because a change of routes leaves connections open.
    """
    revoked = [_claim("jti", {"string_match": {"exact": id_}}) for id_ in ids]
    no_role = [
        {
            "and_ids": {
                "ids": [
                    _claim("iss", {"present_match": True}),
                    {"not_id": _claim("role", {"double_match": {"range": _ROLES}})},
                ]
            }
        }
    ]
    policy = {"permissions": [{"any": True}], "principals": revoked + no_role}
    rules = {"action": "DENY", "policies": {"refused": policy}}
    return {_RBAC_NAME: typed(f"{_RBAC}.RBACPerRoute", rbac={"rules": rules})}


def _jwt(jwks_path: str) -> dict[str, Any]:
    provider = {
        "issuer": "lepton",
        "audiences": ["lepton"],
        "local_jwks": {"filename": jwks_path},
        # The services behind check it again.
        "forward": True,
        "payload_in_metadata": JWT_METADATA,
        "clock_skew_seconds": 5,
        # Checking a signature costs more than all else that is done for a small request.
        "jwt_cache_config": {"jwt_cache_size": 1024},
    }
    open_rules = [{"match": {"path": path}} for path in _OPEN_PATHS]
    checked = {"match": {"prefix": "/"}, "requires": {"provider_name": "lepton"}}
    return typed(
        f"{_JWT}.JwtAuthentication", providers={"lepton": provider}, rules=[*open_rules, checked]
    )


def _claim(name: str, value: dict[str, Any]) -> dict[str, Any]:
    path = [{"key": JWT_METADATA}, {"key": name}]
    matcher = {"filter": "envoy.filters.http.jwt_authn", "path": path, "value": value}
    return {"sourced_metadata": {"metadata_matcher": matcher, "metadata_source": "DYNAMIC"}}


def _transcoder(descriptors: str) -> dict[str, Any]:
    package = "lepton_ai.proto.v1"
    return typed(
        f"{_HTTP}.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor_bin=descriptors,
        services=[
            f"{package}.{name}" for name in ("SchedulerService", "StorageService", "GatewayService")
        ],
        convert_grpc_status=True,
        print_options={
            "always_print_primitive_fields": True,
            "preserve_proto_field_names": True,
            "stream_newline_delimited": True,
        },
        # A mistyped field is an error, not something to pass over.
        request_validation_options={"reject_unknown_query_parameters": True},
    )


def _lua(source: str) -> dict[str, Any]:
    return typed(f"{_HTTP}.lua.v3.Lua", default_source_code={"inline_string": source})


def _filter(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": config}


def _off(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": config, "disabled": True}
