"""What the gateway itself answers of the Open Inference Protocol: how the cluster stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from lepton_ai.errors import (
    LeptonError,
    NotFoundError,
    UnavailableError,
    UnimplementedError,
)
from lepton_gateway.table import RoutedDeployment, RouteTable
from lepton_runtime.oip import grpc_service_pb2 as pb

__all__ = [
    "SERVING",
    "answer_call",
    "model_names",
    "repository_index",
    "server_metadata",
    "why_not",
]

_EXTENSIONS = ["binary_tensor_data", "model_configuration", "parameters", "statistics"]
# grpc.health.v1.HealthCheckResponse with status SERVING.
SERVING = b"\x08\x01"


def server_metadata(version: str) -> dict[str, Any]:
    """Answer to `GET /v2`."""
    return {"name": "lepton", "version": version, "extensions": _EXTENSIONS}


def model_names(table: RouteTable) -> list[str]:
    """Names that can be called now."""
    return [found.name for found in table.deployments if found.replicas or found.sleeps]


def repository_index(table: RouteTable) -> list[dict[str, str]]:
    """An entry for each deployment and version that answers, and for those that do not yet."""
    return [entry for found in table.deployments for entry in _entries(found)]


def _entries(deployment: RoutedDeployment) -> list[dict[str, str]]:
    versions = sorted({replica.version for replica in deployment.replicas})
    if not versions:
        reason = deployment.reason or deployment.state.lower()
        return [{"name": deployment.name, "version": "", "state": "UNAVAILABLE", "reason": reason}]
    return [
        {"name": deployment.name, "version": str(version), "state": "READY", "reason": ""}
        for version in versions
    ]


def why_not(table: RouteTable, model: str) -> LeptonError:
    """Why a request for a model came to the gateway and not to a replica."""
    names = [found.name for found in table.deployments]
    for found in table.deployments:
        if found.name == model:
            return UnavailableError(
                f"deployment {model!r} has no replica that answers",
                hint=found.reason or "try again in a moment",
                model=model,
            )
    return NotFoundError(f"model {model!r} is not deployed", hint=_known(model, names), model=model)


def _known(name: str, names: list[str]) -> str:
    if not names:
        return "nothing is deployed"
    known = f"deployed are {', '.join(names)}"
    close = get_close_matches(name, names, 1)
    return f"did you mean {close[0]!r}? {known}" if close else known


def answer_call(method: str, model: str, table: RouteTable, version: str) -> bytes:
    """The answer to a call of `inference.GRPCInferenceService` that no replica serves.

    Args:
        method: The call's name, such as "ServerLive".
        model: The model it names; empty for none that could be read.
        table: What there is.
        version: Of this software.

    Raises:
        LeptonError: What the caller is told instead.
    """
    calls: Mapping[str, Callable[[], bytes]] = {
        "ServerLive": lambda: pb.ServerLiveResponse(live=True).SerializeToString(),
        "ServerReady": lambda: pb.ServerReadyResponse(ready=True).SerializeToString(),
        # A model that is ready answers this itself.
        "ModelReady": lambda: pb.ModelReadyResponse(ready=False).SerializeToString(),
        "ServerMetadata": lambda: _message(server_metadata(version), pb.ServerMetadataResponse()),
        "RepositoryIndex": lambda: _message(
            {"models": repository_index(table)}, pb.RepositoryIndexResponse()
        ),
    }
    if method in calls:
        return calls[method]()
    if method.startswith("Repository"):
        raise UnimplementedError(
            f"call {method} is not offered by a cluster", hint="apply or delete a deployment"
        )
    raise why_not(table, model)


def _message(document: dict[str, Any], message: Message) -> bytes:
    return json_format.ParseDict(document, message).SerializeToString()
