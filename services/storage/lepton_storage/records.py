"""Copies on this node's disk of what etcd knows about bytes, so that etcd's loss is not theirs.

Each record is a file of its own, ``records/NAME``: the BLAKE3 hash of all that follows, the length
of the key (four bytes, big endian), the key, the value. NAME is the hash of the key.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import structlog
from blake3 import blake3

from lepton_ai.proto.v1.storage_pb2 import Object
from lepton_runtime import keys
from lepton_runtime.clock import Clock
from lepton_runtime.state import State

__all__ = ["RECOVERED", "Records"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.records")
RECOVERED = (
    keys.TENANT_KEYS,
    keys.QUOTAS,
    keys.DATASETS,
    keys.MODELS,
    keys.ALIASES,
    keys.RETENTION,
)
"""What every node keeps copies of, beside the manifests of objects that it has chunks of."""

_HASH_BYTES = 32
_LENGTH_BYTES = 4


class Records:
    """A `Chore` that keeps the copies true.

    Args:
        folder: Where they lie; made when it is missing.
        node_id: This node.
        state: What they are copies of.
        clock: Tells how old they are.
        garbage_age_s: How long a copy stays of what is gone.
    """

    def __init__(
        self, folder: Path, node_id: str, state: State, clock: Clock, garbage_age_s: float
    ) -> None:
        self._folder = folder
        self._node_id = node_id
        self._state = state
        self._clock = clock
        self._garbage_age_s = garbage_age_s
        self._working = threading.Lock()
        # The hash of each file that is known to be right, by its name; None before the first look.
        self._known: dict[str, bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    async def attend(self, manifests: Sequence[Object]) -> None:
        """Write what changed, and remove copies of what has been gone for long."""
        wanted = {
            keys.object_(manifest.id): manifest.SerializeToString()
            for manifest in manifests
            if any(self._node_id in chunk.nodes for chunk in manifest.chunks)
        }
        for prefix in RECOVERED:
            records = (await self._state.list(prefix)).records
            wanted.update((record.key, record.value) for record in records)
        await asyncio.to_thread(self._reconcile, wanted)

    async def all(self) -> list[tuple[str, bytes]]:
        """The keys and values of every good copy."""
        return await asyncio.to_thread(self._all)

    async def scrub(self) -> int:
        """Read every copy; those that are bad go, and the next round writes them anew.

        Returns:
            How many were bad or had vanished.
        """
        return await asyncio.to_thread(self._scrub)

    def _all(self) -> list[tuple[str, bytes]]:
        with self._working:
            return [(key, value) for _, key, value in self._read()]

    def _reconcile(self, wanted: Mapping[str, bytes]) -> None:
        with self._working:
            if self._known is None:
                self._known = self._hashes()
            contents = {_name(key): _encoded(key, value) for key, value in wanted.items()}
            for name, content in contents.items():
                if self._known.get(name) != content[:_HASH_BYTES]:
                    self._write(name, content)
                    self._known[name] = content[:_HASH_BYTES]
            for name in self._known.keys() - contents.keys():
                if self._is_old(name):
                    (self._folder / name).unlink(missing_ok=True)
                    del self._known[name]

    def _scrub(self) -> int:
        with self._working:
            before, self._known = self._known or {}, self._hashes()
            return sum(self._known.get(name) != expected for name, expected in before.items())

    def _hashes(self) -> dict[str, bytes]:
        return {name: _encoded(key, value)[:_HASH_BYTES] for name, key, value in self._read()}

    def _read(self) -> Iterator[tuple[str, str, bytes]]:
        """Name, key and value of every good copy; bad ones are removed."""
        for path in sorted(self._folder.iterdir()):
            record = _decoded(path.name, path.read_bytes())
            if record is None:
                _log.error("record_spoilt", record=path.name)
                path.unlink()
            else:
                yield path.name, *record

    def _write(self, name: str, content: bytes) -> None:
        """No flush: what a crash leaves half written is found and written anew."""
        temporary = self._folder / f".{name}"
        temporary.write_bytes(content)
        temporary.replace(self._folder / name)

    def _is_old(self, name: str) -> bool:
        """Whether it was last written long ago; one that was deleted is then gone for sure."""
        try:
            written_at = (self._folder / name).stat().st_mtime
        except FileNotFoundError:
            return True
        return written_at < self._clock.now() - self._garbage_age_s


def _name(key: str) -> str:
    return blake3(key.encode()).hexdigest()


def _encoded(key: str, value: bytes) -> bytes:
    name = key.encode()
    rest = len(name).to_bytes(_LENGTH_BYTES, "big") + name + value
    return blake3(rest).digest() + rest


def _decoded(name: str, content: bytes) -> tuple[str, bytes] | None:
    """The key and value in a file; None where it is damaged."""
    rest = content[_HASH_BYTES:]
    if blake3(rest).digest() != content[:_HASH_BYTES]:
        return None
    end = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES], "big")
    key = rest[_LENGTH_BYTES:end].decode(errors="replace")
    return (key, rest[end:]) if _name(key) == name else None
