"""Names that the documents share: what one declares, another refers to."""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "APP_CLUSTER",
    "CALLS_CLUSTER",
    "DATA_CLUSTER",
    "GATEWAY_CLUSTER",
    "JWT_METADATA",
    "RELAY_CLUSTER",
    "ROUTES",
    "SCHEDULER_CLUSTER",
    "SHADOW_CLUSTERS",
    "STORAGE_CLUSTER",
    "TYPE",
    "VERSION_CLUSTERS",
    "duration",
    "file_source",
    "shadow_cluster",
    "typed",
    "version_cluster",
]

TYPE: Final = "type.googleapis.com/"
ROUTES: Final = "routes"
APP_CLUSTER: Final = "app"
CALLS_CLUSTER: Final = "calls"
GATEWAY_CLUSTER: Final = "gateway"
RELAY_CLUSTER: Final = "relay"
SCHEDULER_CLUSTER: Final = "schedulers"
STORAGE_CLUSTER: Final = "storage"
DATA_CLUSTER: Final = "data"
VERSION_CLUSTERS: Final = "deployment/"
SHADOW_CLUSTERS: Final = "shadow/"
# Under which the checked claims of a key are found.
JWT_METADATA: Final = "claims"


def version_cluster(name: str, version: int) -> str:
    """The cluster of one version of a deployment. No name of a user can be another cluster's."""
    return f"{VERSION_CLUSTERS}{name}/{version}"


def shadow_cluster(name: str, version: int) -> str:
    """Where requests go that are mirrored to compare the answers of a version."""
    return f"{SHADOW_CLUSTERS}{name}/{version}"


def typed(kind: str, **config: Any) -> dict[str, Any]:
    """A `google.protobuf.Any` in JSON: `kind` is the full name of its message."""
    return {"@type": TYPE + kind, **config}


def duration(seconds: float) -> str:
    """A `google.protobuf.Duration` in JSON."""
    return f"{seconds:g}s"


def file_source(path: str) -> dict[str, Any]:
    """A resource that Envoy reads anew whenever a file is renamed to `path`."""
    return {"path_config_source": {"path": path}, "resource_api_version": "V3"}
