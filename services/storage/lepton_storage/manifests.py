"""Manifests of objects in the cluster's state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lepton_ai.chunking import check_object_id
from lepton_ai.errors import ConflictError, NotFoundError
from lepton_ai.proto.v1.storage_pb2 import Object
from lepton_runtime import keys
from lepton_runtime.state import (
    Absent,
    Condition,
    Operation,
    Record,
    Remove,
    State,
    Unchanged,
    Write,
)
from lepton_storage.batches import Batches

__all__ = ["Manifests", "Relocation", "merged"]

_TRIES = 10
# etcd takes 128 operations and 1.5 MiB in a transaction.
_MAX_KEYS = 100
_MAX_TRANSACTION_BYTES = 512 * 1024


@dataclass(frozen=True)
class Relocation:
    """Copies of a chunk that came, and nodes whose copies count no longer.

    What counts is applied to the manifest as it then is. `instead` marks a hand-over, in which
    one goes only because another came: where somebody else brought that one already, none goes,
    or two nodes that hand over to the same third would leave one copy of two.
    """

    gone: frozenset[str]
    made: tuple[str, ...]
    instead: bool = False

    def applied(self, nodes: Sequence[str]) -> list[str]:
        """The nodes that have the chunk afterwards."""
        if self.instead and any(node in nodes for node in self.made):
            return list(nodes)
        kept = [node for node in nodes if node not in self.gone]
        return [*kept, *(node for node in self.made if node not in kept)]


class Manifests:
    """Reads and changes manifests; every change is compared and swapped."""

    def __init__(self, state: State) -> None:
        self._state = state
        # Small objects come by the thousand, and a transaction costs more than what it writes.
        self._creations = Batches(
            self._create, at_once=2, max_items=_MAX_KEYS, max_size=_MAX_TRANSACTION_BYTES
        )

    async def get(self, object_id: str) -> Object:
        """The manifest of an object.

        Raises:
            InvalidArgumentError: That is no object's id.
            NotFoundError: No such object is stored.
        """
        return Object.FromString((await self._record(object_id)).value)

    async def list(self) -> list[Object]:
        """All manifests."""
        records = (await self._state.list(keys.OBJECTS)).records
        return [Object.FromString(record.value) for record in records]

    async def add(self, new: Object) -> Object:
        """Make an object visible. When it is stored already, the copies of both count."""
        key = keys.object_(new.id)
        value = new.SerializeToString()
        if await self._creations.do((key, value), len(key) + len(value)):
            return new
        result = await self._swap(new.id, lambda stored: merged(stored, new) if stored else new)
        assert result is not None
        return result

    async def pins(self, object_ids: Iterable[str]) -> list[tuple[Condition, Operation]]:
        """What a commit needs that begins to name objects: none that forgets them succeeds beside.

        Raises:
            NotFoundError: One is not stored.
        """
        records = [await self._record(object_id) for object_id in dict.fromkeys(object_ids)]
        return [
            (Unchanged(record.key, record.mod_revision), Write(record.key, record.value))
            for record in records
        ]

    async def expire(self, object_id: str, made_before: float) -> bool:
        """Forget an object if it is as old as that (Unix time, seconds) still; whether it was."""
        record = await self._state.get(keys.object_(object_id))
        if record is None:
            return False
        if Object.FromString(record.value).created_at.ToNanoseconds() >= made_before * 1e9:
            return False
        unchanged = Unchanged(record.key, record.mod_revision)
        return await self._state.commit([unchanged], [Remove(record.key)]) is not None

    async def remove(self, object_id: str) -> None:
        """Forget an object, if it is known."""
        await self._state.commit([], [Remove(keys.object_(check_object_id(object_id)))])

    async def moved(self, object_id: str, moves: Mapping[bytes, Relocation]) -> None:
        """Change where chunks are, by chunk hash. An object that is gone stays gone."""
        await self._swap(object_id, lambda stored: _relocated(stored, moves) if stored else None)

    async def _create(self, records: Sequence[tuple[str, bytes]]) -> list[bool]:
        """Make keys; tells of each whether it was made, or is there already."""
        made = await self._make(dict(records))
        if made or len(records) == 1:
            return [made] * len(records)
        # One that is there spoils it for all: each for itself then.
        return [await self._make(dict([record])) for record in records]

    async def _make(self, records: Mapping[str, bytes]) -> bool:
        absent = [Absent(key) for key in records]
        writes = [Write(key, value) for key, value in records.items()]
        return await self._state.commit(absent, writes) is not None

    async def _record(self, object_id: str) -> Record:
        record = await self._state.get(keys.object_(check_object_id(object_id)))
        if record is None:
            raise NotFoundError(f"object {object_id!r} does not exist", object=object_id)
        return record

    async def _swap(
        self, object_id: str, change: Callable[[Object | None], Object | None]
    ) -> Object | None:
        key = keys.object_(object_id)
        for _ in range(_TRIES):
            record = await self._state.get(key)
            changed = change(Object.FromString(record.value) if record else None)
            if changed is None:
                return None
            write = Write(key, changed.SerializeToString())
            if await self._state.commit([_condition(key, record)], [write]) is not None:
                return changed
        raise ConflictError("the object keeps changing", hint="try again", object=object_id)


def merged(stored: Object, new: Object) -> Object:
    """One manifest for the same content stored twice: all copies, the higher wish, as young."""
    wishes = (stored.replication, new.replication)
    result = Object()
    result.CopyFrom(stored)
    result.replication = 0 if 0 in wishes else max(wishes)
    times = (stored.created_at.ToNanoseconds(), new.created_at.ToNanoseconds())
    result.created_at.FromNanoseconds(max(times))
    for chunk, other in zip(result.chunks, new.chunks, strict=True):
        chunk.nodes.extend(node for node in other.nodes if node not in chunk.nodes)
    return result


def _relocated(stored: Object, moves: Mapping[bytes, Relocation]) -> Object:
    result = Object()
    result.CopyFrom(stored)
    for chunk in result.chunks:
        if chunk.hash in moves:
            chunk.nodes[:] = moves[chunk.hash].applied(chunk.nodes)
    return result


def _condition(key: str, record: Record | None) -> Absent | Unchanged:
    return Unchanged(key, record.mod_revision) if record else Absent(key)
