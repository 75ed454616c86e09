"""The gateway's own calls: keys, and the cluster at a glance."""

from __future__ import annotations

import re
from typing import Any

import grpc

from lepton_ai.errors import InvalidArgumentError, PermissionDeniedError
from lepton_ai.names import check_name
from lepton_ai.proto.v1 import (
    deployment_pb2,
    gateway_pb2,
    gateway_pb2_grpc,
    job_pb2,
    node_pb2,
    options_pb2,
    storage_pb2,
)
from lepton_runtime import keys
from lepton_runtime.auth import TokenSigner
from lepton_runtime.clock import Clock
from lepton_runtime.server import principal
from lepton_runtime.state import State, Write

__all__ = ["GatewayServicer", "summarize"]

_DEFAULT_TENANT = "default"
_DEFAULT_TTL_S = 90 * 24 * 3600
_MAX_TTL_S = 366 * 24 * 3600
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ENDED = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
_Context = grpc.aio.ServicerContext[Any, Any]


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    """Answers `GatewayService`.

    Args:
        state: The truth.
        signer: Signs new keys.
        clock: Tells when keys end.
        version: Of this software.
    """

    def __init__(self, state: State, signer: TokenSigner, clock: Clock, version: str) -> None:
        self._state = state
        self._signer = signer
        self._clock = clock
        self._version = version

    async def CreateKey(
        self, request: gateway_pb2.CreateKeyRequest, context: _Context
    ) -> gateway_pb2.CreateKeyResponse:
        """Sign a new key, no more powerful than the caller's."""
        check_role(request.role, principal().role)
        tenant = check_name("tenant", request.tenant or _DEFAULT_TENANT)
        minted = self._signer.mint(
            tenant,
            request.role,
            _ttl_s(request.ttl_s),
            self._clock.now(),
            may_run_code=request.may_run_code,
        )
        answer = gateway_pb2.CreateKeyResponse(key=minted.token, id=minted.id)
        answer.expires_at.FromSeconds(minted.expires_at)
        return answer

    async def RevokeKey(
        self, request: gateway_pb2.RevokeKeyRequest, context: _Context
    ) -> gateway_pb2.RevokeKeyResponse:
        """Refuse a key at every gateway, which all follow the record."""
        if not _KEY_ID.fullmatch(request.id):
            raise InvalidArgumentError(
                f"{request.id!r} is no key's id", hint="it came with the key when it was created"
            )
        # The id does not tell when the key expires; no key lives longer than this.
        expires = int(self._clock.now() + _MAX_TTL_S)
        record = Write(keys.revoked_key(request.id), str(expires).encode())
        await self._state.commit([], [record])
        return gateway_pb2.RevokeKeyResponse()

    async def GetStatus(
        self, request: gateway_pb2.GetStatusRequest, context: _Context
    ) -> gateway_pb2.GetStatusResponse:
        """Sum the cluster up."""
        prefixes = (keys.NODES, keys.JOBS, keys.DEPLOYMENTS, keys.MODELS, keys.DATASETS)
        found = {prefix: await self._values(prefix) for prefix in prefixes}
        status = summarize(found)
        status.version = self._version
        return status

    async def _values(self, prefix: str) -> list[bytes]:
        return [record.value for record in (await self._state.list(prefix)).records]


def check_role(wanted: int, own: int) -> None:
    """Whether a caller may create a key of a role.

    Raises:
        InvalidArgumentError: There is no such role to give.
        PermissionDeniedError: It is above the caller's own.
    """
    offered = range(options_pb2.ROLE_INFERENCE, options_pb2.ROLE_SERVICE)
    if wanted not in offered:
        names = ", ".join(options_pb2.Role.Name(role) for role in offered)
        raise InvalidArgumentError(f"role {wanted} is not given to keys", hint=f"one of {names}")
    if wanted > own:
        raise PermissionDeniedError("a key cannot create a more powerful one")


def summarize(found: dict[str, list[bytes]]) -> gateway_pb2.GetStatusResponse:
    """Count what the cluster holds, from its records by prefix."""
    nodes = [node_pb2.Node.FromString(value) for value in found[keys.NODES]]
    roles = [node.role for node in nodes]
    jobs = [job_pb2.Job.FromString(value) for value in found[keys.JOBS]]
    deployments = [deployment_pb2.Deployment.FromString(value) for value in found[keys.DEPLOYMENTS]]
    return gateway_pb2.GetStatusResponse(
        workers=roles.count(node_pb2.NODE_ROLE_WORKER),
        storage_nodes=roles.count(node_pb2.NODE_ROLE_STORAGE),
        schedulers=roles.count(node_pb2.NODE_ROLE_SCHEDULER),
        gateways=roles.count(node_pb2.NODE_ROLE_GATEWAY),
        active_jobs=sum(job.state not in _ENDED for job in jobs),
        deployments=len(deployments),
        ready_replicas=sum(deployment.ready_replicas for deployment in deployments),
        models=_present(storage_pb2.Model, found[keys.MODELS]),
        datasets=_present(storage_pb2.Dataset, found[keys.DATASETS]),
        storage_free_bytes=sum(node.disk_free_bytes for node in nodes),
        under_replicated_chunks=max((node.under_replicated_chunks for node in nodes), default=0),
        unreadable_chunks=max((node.unreadable_chunks for node in nodes), default=0),
    )


def _present(kind: type[storage_pb2.Model | storage_pb2.Dataset], values: list[bytes]) -> int:
    return sum(not kind.FromString(value).HasField("deleted_at") for value in values)


def _ttl_s(wanted: int) -> int:
    if wanted < 0 or wanted > _MAX_TTL_S:
        raise InvalidArgumentError(
            f"ttl_s is {wanted}", hint=f"between 1 and {_MAX_TTL_S}, or 0 for {_DEFAULT_TTL_S}"
        )
    return wanted or _DEFAULT_TTL_S
