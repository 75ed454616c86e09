"""How much each tenant stores, and how much it may."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lepton_ai.errors import InvalidArgumentError, ResourceExhaustedError
from lepton_ai.names import check_name
from lepton_ai.proto.v1.storage_pb2 import Object, Quota, TenantUsage
from lepton_runtime import keys
from lepton_runtime.state import Delete, Put, Record, Remove, Snapshot, State, Write

__all__ = ["Quotas", "Usage", "usage_of"]


@dataclass(frozen=True)
class Usage:
    """What a tenant stores: objects, and their bytes, each object's once whatever its copies."""

    objects: int = 0
    size_bytes: int = 0

    def plus(self, size_bytes: int) -> Usage:
        """The usage with one object more."""
        return Usage(self.objects + 1, self.size_bytes + size_bytes)


def usage_of(manifests: Iterable[Object]) -> dict[str, Usage]:
    """The usage of each tenant. An object that two have stored is the first one's."""
    found: dict[str, Usage] = {}
    for manifest in manifests:
        found[manifest.tenant] = found.get(manifest.tenant, Usage()).plus(manifest.size_bytes)
    return found


class Quotas:
    """Limits, followed in the cluster's state, and a `Chore` that counts.

    Usage is that of the last round and what this node added since: several nodes may together
    let a tenant exceed its quota by what they take between two rounds.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._limits: dict[str, int] = {}
        self._usage: dict[str, Usage] = {}

    async def follow(self) -> None:
        """Learn limits until cancelled."""
        async for change in self._state.watch(keys.QUOTAS):
            match change:
                case Snapshot(records=records):
                    self._limits = dict(map(_limit, records))
                case Put(record=record):
                    self._limits.update([_limit(record)])
                case Delete(key=key):
                    self._limits.pop(key.removeprefix(keys.QUOTAS), None)

    async def attend(self, manifests: Sequence[Object]) -> None:
        """Count."""
        self._usage = usage_of(manifests)

    async def set(self, tenant: str, size_bytes: int) -> None:
        """Limit what a tenant stores; 0 takes the limit away. What it has already stays.

        Raises:
            InvalidArgumentError: That is no tenant's name or no size.
        """
        key = keys.quota(check_name("tenant", tenant))
        if size_bytes < 0:
            raise InvalidArgumentError(f"a quota of {size_bytes} bytes", hint="0 for no limit")
        quota = Quota(size_bytes=size_bytes).SerializeToString()
        await self._state.commit([], [Write(key, quota) if size_bytes else Remove(key)])

    def check(self, tenant: str, size_bytes: int) -> None:
        """Let a tenant store so much more.

        Raises:
            ResourceExhaustedError: It may not.
        """
        limit, used = self._limits.get(tenant), self._usage.get(tenant, Usage()).size_bytes
        if limit is not None and used + size_bytes > limit:
            raise ResourceExhaustedError(
                f"tenant {tenant!r} stores {used} bytes and may store {limit}: "
                f"{size_bytes} more are too many",
                hint="delete what is not needed, or have an administrator raise the quota",
            )

    def count(self, tenant: str, size_bytes: int) -> None:
        """Note an object that was stored just now."""
        self._usage[tenant] = self._usage.get(tenant, Usage()).plus(size_bytes)

    def table(self) -> list[TenantUsage]:
        """All tenants that store something or have a limit, by name."""
        names = sorted({*self._usage, *self._limits})
        return [
            TenantUsage(
                tenant=name,
                objects=self._usage.get(name, Usage()).objects,
                size_bytes=self._usage.get(name, Usage()).size_bytes,
                quota_bytes=self._limits.get(name, 0),
            )
            for name in names
        ]


def _limit(record: Record) -> tuple[str, int]:
    return record.key.removeprefix(keys.QUOTAS), Quota.FromString(record.value).size_bytes
