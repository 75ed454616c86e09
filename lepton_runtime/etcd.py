"""State in etcd, over the v3 gRPC API.

aetcd brings the API's messages and stubs; deadlines, watches that survive, and leases that say
when they are lost are ours (etcd API reference, v3.5).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import grpc
import structlog
from aetcd.rpc import kv_pb2 as _kv_pb2
from aetcd.rpc import rpc_pb2 as _rpc_pb2
from aetcd.rpc import rpc_pb2_grpc

from lepton_ai.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    LeptonError,
    ResourceExhaustedError,
    UnavailableError,
)
from lepton_runtime.state import (
    Absent,
    Change,
    Condition,
    Created,
    Delete,
    Exists,
    Operation,
    Put,
    Record,
    Snapshot,
    Unchanged,
    Write,
)

__all__ = ["EtcdState"]

_log = structlog.get_logger("lepton.etcd")

# Their messages are made at run time, out of a type checker's sight.
kv_pb2: Any = _kv_pb2
rpc_pb2: Any = _rpc_pb2
_END: Any = grpc.aio.EOF  # pyright: ignore[reportAttributeAccessIssue]

DEADLINE_S = 5.0
# How long a broken watch waits before it lists again.
_RETRY_S = 0.5
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# etcd ends connections that ping more often than every 5 s (--grpc-keepalive-min-time).
_PING_MS = 6_000
_PONG_MS = 3_000


class EtcdLease:
    """A lease that a task of this process renews every third of its time to live."""

    def __init__(self, state: EtcdState, lease_id: int, ttl_s: float) -> None:
        self.id = lease_id
        self._state = state
        self._ttl_s = ttl_s
        self._lost = asyncio.Event()
        self._renewal = asyncio.create_task(self._renew())

    @property
    def lost(self) -> asyncio.Event:
        """Set once the lease has run out or was closed."""
        return self._lost

    async def close(self) -> None:
        """Give the lease up now; its keys vanish at once."""
        self._renewal.cancel()
        if self._lost.is_set():
            return
        self._lost.set()
        with contextlib.suppress(LeptonError):  # it runs out by itself where etcd is away
            await self._state.revoke(self.id)

    async def _renew(self) -> None:
        """Renew until the time to live has passed without an answer."""
        loop = asyncio.get_running_loop()
        valid_until = loop.time() + self._ttl_s
        while loop.time() < valid_until:
            await asyncio.sleep(self._ttl_s / 3)
            sent = loop.time()
            try:
                left = await self._state.renew(self.id, max(0.1, valid_until - sent))
            except LeptonError as error:
                _log.warning("lease not renewed", lease=self.id, reason=str(error))
                continue
            if left <= 0:
                break
            valid_until = sent + left
        _log.warning("lease lost", lease=self.id)
        self._lost.set()


class EtcdState:
    """The real state.

    Args:
        endpoints: ``host:port`` of each member.
        credentials: For TLS; None only on loopback.
    """

    def __init__(
        self, endpoints: Sequence[str], credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        target = f"ipv4:{','.join(endpoints)}" if len(endpoints) > 1 else endpoints[0]
        options: list[tuple[str, int]] = [
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_timeout_ms", _PONG_MS),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ]
        self._channel = (
            grpc.aio.secure_channel(target, credentials, options=options)
            if credentials
            else grpc.aio.insecure_channel(target, options=options)
        )
        self._kv = rpc_pb2_grpc.KVStub(self._channel)
        self._watches = rpc_pb2_grpc.WatchStub(self._channel)
        self._lease_calls = rpc_pb2_grpc.LeaseStub(self._channel)
        self._leases: list[EtcdLease] = []

    async def get(self, key: str) -> Record | None:
        """The record at `key`, or None."""
        answer = await _call(self._kv.Range, rpc_pb2.RangeRequest(key=key.encode()))
        return _record(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> Snapshot:
        """All records below `prefix`."""
        request = rpc_pb2.RangeRequest(key=prefix.encode(), range_end=_end(prefix))
        answer = await _call(self._kv.Range, request)
        return Snapshot(tuple(_record(kv) for kv in answer.kvs), answer.header.revision)

    async def commit(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> int | None:
        """Apply all operations if all conditions hold."""
        request = rpc_pb2.TxnRequest(
            compare=[_compare(condition) for condition in conditions],
            success=[_operation(operation) for operation in operations],
        )
        answer = await _call(self._kv.Txn, request)
        return answer.header.revision if answer.succeeded else None

    async def watch(self, prefix: str) -> AsyncGenerator[Change]:
        """Follow a prefix, listing again whenever the watch breaks."""
        while True:
            try:
                snapshot = await self.list(prefix)
                yield snapshot
                async for change in self._changes(prefix, snapshot.revision + 1):
                    yield change
            except (UnavailableError, DeadlineExceededError) as error:
                _log.warning("watch interrupted, listing again", prefix=prefix, reason=str(error))
            await asyncio.sleep(_RETRY_S)

    async def lease(self, ttl_s: float) -> EtcdLease:
        """A lease that is renewed until it is closed or etcd cannot be reached."""
        # etcd counts whole seconds, and grants no fewer than two.
        request = rpc_pb2.LeaseGrantRequest(TTL=max(2, round(ttl_s)))
        answer = await _call(self._lease_calls.LeaseGrant, request)
        lease = EtcdLease(self, answer.ID, float(answer.TTL))
        self._leases = [other for other in self._leases if not other.lost.is_set()] + [lease]
        return lease

    async def renew(self, lease_id: int, deadline_s: float) -> float:
        """Renew once; seconds left, 0 when the lease is gone."""
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease_id)
        async with _translated(min(deadline_s, DEADLINE_S)):
            call = self._lease_calls.LeaseKeepAlive(iter([request]), wait_for_ready=True)
            try:
                answer = await call.read()
            finally:
                call.cancel()
        return float(answer.TTL) if answer is not _END else 0.0

    async def revoke(self, lease_id: int) -> None:
        """End a lease and remove its keys."""
        await _call(self._lease_calls.LeaseRevoke, rpc_pb2.LeaseRevokeRequest(ID=lease_id))

    async def close(self) -> None:
        """Close every lease and the connection."""
        await asyncio.gather(*(lease.close() for lease in self._leases))
        await self._channel.close()

    async def _changes(self, prefix: str, revision: int) -> AsyncGenerator[Change]:
        """Changes from `revision` on; ends when the watch was compacted or cancelled."""
        create = rpc_pb2.WatchCreateRequest(
            key=prefix.encode(), range_end=_end(prefix), start_revision=revision
        )
        call = self._watches.Watch()
        try:
            async with _translated(DEADLINE_S):
                await call.write(rpc_pb2.WatchRequest(create_request=create))
            while True:
                async with _translated(None):
                    answer = await call.read()
                if answer is _END or answer.canceled or answer.compact_revision:
                    return
                for event in answer.events:
                    yield _change(event)
        finally:
            call.cancel()


@contextlib.asynccontextmanager
async def _translated(deadline_s: float | None) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        raise DeadlineExceededError(f"etcd did not answer within {deadline_s} s") from None
    except grpc.aio.AioRpcError as error:
        raise _error(error) from error


def _error(error: grpc.aio.AioRpcError) -> LeptonError:
    """What a failed call means. Its details name hosts, so they stay in our log."""
    _log.warning("etcd call failed", code=error.code().name, details=error.details())
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceededError("etcd did not answer in time", hint="try again")
        case grpc.StatusCode.NOT_FOUND:
            return UnavailableError("the lease has run out", hint="take a new lease")
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidArgumentError(
                "etcd refuses the transaction",
                hint="at most 128 operations, each on another key, 1.5 MiB in all",
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ResourceExhaustedError("etcd is full")
        case _:
            return UnavailableError("etcd cannot be reached", hint="try again")


async def _call(method: Any, request: Any) -> Any:
    async with _translated(DEADLINE_S + 1):
        # Waiting for the connection, a call outlives a quick restart and is still sent only once.
        return await method(request, timeout=DEADLINE_S, wait_for_ready=True)


def _end(prefix: str) -> bytes:
    """The first key after all that begin with `prefix` (our keys are ASCII)."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


def _record(kv: Any) -> Record:
    return Record(kv.key.decode(), kv.value, kv.create_revision, kv.mod_revision)


def _change(event: Any) -> Change:
    if event.type == kv_pb2.Event.DELETE:
        return Delete(event.kv.key.decode(), event.kv.mod_revision)
    return Put(_record(event.kv))


def _compare(condition: Condition) -> Any:
    compare = rpc_pb2.Compare(key=condition.key.encode(), result=rpc_pb2.Compare.EQUAL)
    match condition:
        case Absent():
            compare.target, compare.create_revision = rpc_pb2.Compare.CREATE, 0
        case Exists():
            compare.result = rpc_pb2.Compare.GREATER
            compare.target, compare.create_revision = rpc_pb2.Compare.CREATE, 0
        case Unchanged(mod_revision=revision):
            compare.target, compare.mod_revision = rpc_pb2.Compare.MOD, revision
        case Created(create_revision=revision):
            compare.target, compare.create_revision = rpc_pb2.Compare.CREATE, revision
    return compare


def _operation(operation: Operation) -> Any:
    key = operation.key.encode()
    if not isinstance(operation, Write):
        return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
    lease = operation.lease.id if isinstance(operation.lease, EtcdLease) else 0
    put = rpc_pb2.PutRequest(key=key, value=operation.value, lease=lease)
    return rpc_pb2.RequestOp(request_put=put)


def client_credentials(authority: Path, certificate: Path, key: Path) -> grpc.ChannelCredentials:
    """Credentials of mutual TLS from PEM files."""
    return grpc.ssl_channel_credentials(
        authority.read_bytes(), key.read_bytes(), certificate.read_bytes()
    )
