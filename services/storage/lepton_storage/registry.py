"""Numbered versions below a name: what datasets and models have in common."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from lepton_ai.errors import ConflictError, InvalidArgumentError, NotFoundError
from lepton_ai.names import check_name
from lepton_ai.proto.v1.storage_pb2 import Dataset, Model
from lepton_runtime.state import (
    Absent,
    Condition,
    Operation,
    Record,
    State,
    Unchanged,
    Write,
)

__all__ = ["Pins", "Registry"]

_TRIES = 10
Pins = list[tuple[Condition, Operation]]
_EntryT = TypeVar("_EntryT", Dataset, Model)


class Registry(Generic[_EntryT]):
    """Immutable versions 1, 2, 3 … of named entries.

    Args:
        state: Where they are kept.
        kind: The message, `Dataset` or `Model`.
        prefix: Of their keys.
        key: The key of a name and version.
    """

    def __init__(
        self, state: State, kind: type[_EntryT], prefix: str, key: Callable[[str, int], str]
    ) -> None:
        self._state = state
        self._kind = kind
        self._prefix = prefix
        self._key = key
        self._noun = kind.DESCRIPTOR.name.lower()

    async def add(
        self,
        entry: _EntryT,
        same: Callable[[_EntryT], bool],
        pins: Callable[[], Awaitable[Pins]],
        guards: Sequence[Condition] = (),
    ) -> tuple[_EntryT, bool]:
        """Keep `entry` as the next version of its name, unless a version is the `same` already.

        Args:
            entry: All but its version.
            same: Whether a version stands for the same.
            pins: What else the commit needs, as things are now.
            guards: What must hold for the writer to have a say.

        Returns:
            The version that is kept, and whether it is new.

        Raises:
            ConflictError: A guard does not hold, or other versions kept coming.
        """
        for _ in range(_TRIES):
            versions = await self._below(self._folder(entry.name))
            for version in versions:
                if not version.HasField("deleted_at") and same(version):
                    return version, False
            entry.version = max((version.version for version in versions), default=0) + 1
            key = self._key(entry.name, entry.version)
            pinned = await pins()
            conditions = [Absent(key), *guards, *(condition for condition, _ in pinned)]
            writes = [Write(key, entry.SerializeToString()), *(write for _, write in pinned)]
            if await self._state.commit(conditions, writes):
                return entry, True
            if await self._state.commit(guards, []) is None:
                raise ConflictError("whoever writes this was replaced", hint="nothing was kept")
        raise ConflictError(f"{self._noun} {entry.name!r} keeps changing", hint="try again")

    async def get(self, name: str, version: int) -> _EntryT:
        """A version, or the newest for 0.

        Raises:
            InvalidArgumentError: The name is outside the pattern, or the version negative.
            NotFoundError: There is no such name or version; says which there are.
        """
        versions = {entry.version: entry for entry in await self.list(name)}
        if version < 0:
            raise InvalidArgumentError(f"version is {version}", hint="1 or more, or 0 for newest")
        if not versions:
            raise await self._no_such_name(name)
        if version and version not in versions:
            raise NotFoundError(
                f"{self._noun} {name!r} has no version {version}",
                hint=f"its newest is {max(versions)}",
            )
        return versions[version or max(versions)]

    async def list(self, name: str) -> list[_EntryT]:
        """All versions of a name, oldest first.

        Raises:
            InvalidArgumentError: The name is outside the pattern.
        """
        return _present(await self._below(self._folder(name)))

    async def pinned(self, name: str, version: int) -> tuple[Condition, Operation]:
        """What a commit needs that begins to name a version: none that removes it succeeds beside.

        Raises:
            NotFoundError: There is no such version.
        """
        record = await self._record(name, version)
        return Unchanged(record.key, record.mod_revision), Write(record.key, record.value)

    async def remove(
        self, entry: _EntryT, now: float, users: Callable[[_EntryT], Awaitable[list[str]]]
    ) -> None:
        """Forget a version but for its number.

        Args:
            entry: A version that was read.
            now: Unix time, seconds.
            users: Tells what names it.

        Raises:
            NotFoundError: It was forgotten already.
            ConflictError: Something names it.
        """
        tombstone = self._kind(name=entry.name, version=entry.version)
        tombstone.deleted_at.FromNanoseconds(int(now * 1e9))
        for _ in range(_TRIES):
            record = await self._record(entry.name, entry.version)
            if named := await users(entry):
                raise ConflictError(
                    f"version {entry.version} of {self._noun} {entry.name!r} is in use by "
                    + ", ".join(named),
                    hint="change that first",
                )
            unchanged = Unchanged(record.key, record.mod_revision)
            write = Write(record.key, tombstone.SerializeToString())
            if await self._state.commit([unchanged], [write]) is not None:
                return
        raise ConflictError(f"{self._noun} {entry.name!r} keeps changing", hint="try again")

    async def _record(self, name: str, version: int) -> Record:
        record = await self._state.get(self._key(name, version))
        if record is None or self._kind.FromString(record.value).HasField("deleted_at"):
            raise NotFoundError(f"{self._noun} {name!r} has no version {version}")
        return record

    async def list_all(self) -> list[_EntryT]:
        """All versions of all names, by name, oldest first."""
        entries = _present(await self._below(self._prefix))
        # Keys sort otherwise where one name begins with another: '-' comes before '/'.
        return sorted(entries, key=lambda entry: (entry.name, entry.version))

    def _folder(self, name: str) -> str:
        return f"{self._prefix}{check_name(self._noun, name)}/"

    async def _below(self, prefix: str) -> list[_EntryT]:
        records = (await self._state.list(prefix)).records
        return [self._kind.FromString(record.value) for record in records]

    async def _no_such_name(self, name: str) -> NotFoundError:
        names = sorted({entry.name for entry in await self.list_all()})
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {len(names)} {self._noun}s"
        return NotFoundError(f"{self._noun} {name!r} does not exist", hint=hint)


def _present(entries: list[_EntryT]) -> list[_EntryT]:
    return [entry for entry in entries if not entry.HasField("deleted_at")]
