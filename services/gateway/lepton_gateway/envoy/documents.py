"""The documents that change while Envoy runs, and how they reach it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lepton_gateway.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from lepton_gateway.envoy.clusters import Tls, endpoints, endpoints_file, remote_clusters
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.envoy.names import TYPE
from lepton_gateway.envoy.routes import route_configuration
from lepton_gateway.table import RouteTable

__all__ = ["DocumentFolder", "render"]

_CLUSTER = "envoy.config.cluster.v3.Cluster"
_ENDPOINTS = "envoy.config.endpoint.v3.ClusterLoadAssignment"
_ROUTES = "envoy.config.route.v3.RouteConfiguration"


def render(
    table: RouteTable, folder: str, shadow_port: int, limits: Limits, tls: Tls | None
) -> dict[str, dict[str, Any]]:
    """All documents of a table by file name, in the order in which they must be written.

    A cluster's members come before the cluster, and the cluster before a route to it, so that
    nothing ever refers to what Envoy has not read.
    """
    documents = {
        endpoints_file(name): _response(_ENDPOINTS, [assignment])
        for name, assignment in endpoints(table).items()
    }
    clusters = remote_clusters(table, folder, shadow_port, limits, tls)
    documents[CLUSTERS_FILE] = _response(_CLUSTER, clusters)
    documents[ROUTES_FILE] = _response(_ROUTES, [route_configuration(table, limits)])
    documents[ROUTES_FILE]["version_info"] = _digest(documents, table)
    return documents


def _digest(documents: dict[str, dict[str, Any]], table: RouteTable) -> str:
    """Of all documents, so that who knows which routes Envoy has read knows what came before.

    And of the changes of traffic that they stand for, which may differ in nothing else.
    """
    changes = [(found.name, found.traffic_revision) for found in table.deployments]
    content = json.dumps([documents, changes]).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _response(kind: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    """An xDS `DiscoveryResponse`."""
    return {"resources": [{"@type": TYPE + kind, **resource} for resource in resources]}


class DocumentFolder:
    """Brings documents to Envoy, which reads a file when another is renamed to it.

    Args:
        path: A folder that nothing else writes to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: dict[str, bytes] = {}

    def write(self, documents: dict[str, dict[str, Any]]) -> None:
        """Write what differs from the last time, then remove what is no longer there."""
        for name, document in documents.items():
            content = json.dumps(document).encode()
            if self._written.get(name) != content:
                self.replace(name, content)
                self._written[name] = content
        for name in self._written.keys() - documents.keys():
            (self.path / name).unlink(missing_ok=True)
            del self._written[name]

    def replace(self, name: str, content: bytes) -> Path:
        """Write one file at once: readers see the old content or the new, never a part."""
        path = self.path / name
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        return fresh.replace(path)
