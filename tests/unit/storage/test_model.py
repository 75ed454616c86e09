"""Storage against a dictionary: whatever happens, what was acknowledged reads back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pack_files import HEAD_BYTES, records_below
from storage_nodes import GARBAGE_AGE_S, GRACE_S, UNNAMED_AGE_S, nodes_of

from lepton_ai.chunking import CHUNK_BYTES, digest
from lepton_ai.errors import ConflictError, NotFoundError
from lepton_ai.proto.v1.storage_pb2 import Model
from lepton_runtime import keys
from lepton_runtime.memory import MemoryBus
from lepton_runtime.state import Write
from lepton_storage.aliases import Aliases
from lepton_storage.registry import Registry

NAMES = "abcd"
# Some of the small contents share files, some have files of their own.
PACKED_BYTES = 60
ResultT = TypeVar("ResultT")


def flip_a_bit(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


class Storage(RuleBasedStateMachine):
    """Four nodes. One at a time may be away, and no chunk's last good copy is spoilt."""

    objects: Bundle[str] = Bundle("objects")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.context = nodes_of(Path(self.folder.name), NAMES, packed_bytes=PACKED_BYTES)
        self.nodes = self.run(self.context.__aenter__())
        self.contents: dict[str, bytes] = {}
        self.alias: int | None = None
        self.models = Registry(self.nodes.state, Model, keys.MODELS, keys.model)
        voice = (MemoryBus(), self.nodes.clock, "a")
        self.aliases = Aliases(self.nodes.state, self.models, *voice)

    def run(self, step: Coroutine[Any, Any, ResultT]) -> ResultT:
        return self.loop.run_until_complete(step)

    def teardown(self) -> None:
        self.run(self.context.__aexit__(None, None, None))
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    @property
    def away(self) -> list[str]:
        return list(self.nodes.peers.down)

    @property
    def living(self) -> list[str]:
        return [name for name in NAMES if name not in self.away]

    def holders(self, chunk_hash: bytes) -> set[str]:
        """Nodes, away or not, on whose disks lies a good copy."""
        return {node for node in NAMES if digest(self.lies(node, chunk_hash)[1:]) == chunk_hash}

    def lies(self, node: str, chunk_hash: bytes) -> bytes:
        """What lies on a node's disk for a chunk; nothing where there is none."""
        name = chunk_hash.hex()
        path = self.nodes.folder / node / "chunks" / name[:2] / name
        if path.exists():
            return path.read_bytes()
        record = records_below(self.nodes.folder / node).get(chunk_hash)
        return record.content if record else b""

    def chunks(self) -> set[bytes]:
        return {
            digest(content[start : start + CHUNK_BYTES])
            for content in self.contents.values()
            for start in range(0, len(content), CHUNK_BYTES)
        }

    @initialize()
    def publish(self) -> None:
        for version in (1, 2, 3):
            model = Model(name="m", version=version).SerializeToString()
            self.run(self.nodes.state.commit([], [Write(keys.model("m", version), model)]))

    @rule(
        target=objects,
        seed=st.integers(0, 20),
        size=st.one_of(st.integers(1, 100), st.just(CHUNK_BYTES + 7)),
        replication=st.sampled_from([0, 2, 3]),
        by=st.integers(0, 3),
    )
    def put(self, seed: int, size: int, replication: int, by: int) -> str:
        content = random.Random(seed).randbytes(size)
        node = self.living[by % len(self.living)]
        stored = self.run(self.nodes.put(content, replication, node))
        for chunk in stored.chunks:
            assert len(self.holders(chunk.hash) & set(self.living)) >= 2
        self.contents[stored.id] = content
        return stored.id

    @rule(wanted=objects, by=st.integers(0, 3))
    def get(self, wanted: str, by: int) -> None:
        node = self.living[by % len(self.living)]
        if wanted in self.contents:
            assert self.run(self.nodes.read(wanted, node)) == self.contents[wanted]
        else:
            with pytest.raises(NotFoundError):
                self.run(self.nodes.read(wanted, node))

    @rule(wanted=objects, start=st.floats(0, 1), stop=st.floats(0, 1))
    def get_range(self, wanted: str, start: float, stop: float) -> None:
        if wanted not in self.contents:
            return
        content = self.contents[wanted]
        first, last = sorted((int(start * len(content)), int(stop * len(content))))
        read = self.nodes.stores[self.living[0]].read(wanted, first, last - first)
        assert self.run(read) == content[first:last]

    @rule(gone=consumes(objects))
    def delete(self, gone: str) -> None:
        self.run(self.nodes.stores[self.living[0]].delete(gone))
        self.contents.pop(gone, None)

    @rule(version=st.integers(1, 4), expected=st.one_of(st.none(), st.integers(0, 3)))
    def move_alias(self, version: int, expected: int | None) -> None:
        allowed = expected is None or expected == (self.alias or 0)
        refused = NotFoundError if version == 4 else ConflictError
        with contextlib.nullcontext() if version < 4 and allowed else pytest.raises(refused):
            self.run(self.aliases.move("m", "champion", version, expected))
            self.alias = version

    @rule()
    def look_at_alias(self) -> None:
        found = {alias.name: alias.version for alias in self.run(self.aliases.list("m"))}
        assert found == ({"champion": self.alias} if self.alias else {})

    @precondition(lambda self: not self.away)
    @rule(name=st.sampled_from(NAMES))
    def lose(self, name: str) -> None:
        if all(self.holders(chunk) - {name} for chunk in self.chunks()):
            self.run(self.nodes.lose(name))

    @precondition(lambda self: self.away)
    @rule()
    def bring_back(self) -> None:
        self.run(self.nodes.bring_back(self.away[0]))

    @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 2**16))
    def spoil(self, name: str, seed: int) -> None:
        chance = random.Random(seed)
        packed = records_below(self.nodes.folder / name)
        paths = {bytes.fromhex(path.name): path for path in self.nodes.files(name)}
        if not packed.keys() | paths.keys():
            return
        victim = chance.choice(sorted(packed.keys() | paths.keys()))
        if not self.holders(victim) & set(self.living) - {name}:
            return
        if victim in packed:
            packed[victim].flip(8 * HEAD_BYTES + chance.randrange(8 * len(packed[victim].content)))
        else:
            flip_a_bit(paths[victim], chance)

    @rule(seconds=st.sampled_from([0.0, GRACE_S, UNNAMED_AGE_S / 2]))
    def heal(self, seconds: float) -> None:
        # Objects are stored again, so that they are not forgotten for being unnamed.
        self.run(self.nodes.clock.advance(seconds))
        for content in self.contents.values():
            self.run(self.nodes.put(content, 2, self.living[0]))
        self.run(self.nodes.heal())

    @rule()
    def collect(self) -> None:
        """Every chunk is old: what no object names goes, and nothing else."""
        for content in self.contents.values():
            self.run(self.nodes.put(content, 2, self.living[0]))
        self.run(self.nodes.clock.advance(GARBAGE_AGE_S + 1))
        for name in self.living:
            for path in self.nodes.files(name):
                os.utime(path, (0, 0))
        self.run(self.nodes.heal())
        if not self.away:
            assert {chunk for name in NAMES for chunk in self.kept(name)} <= self.chunks()

    def kept(self, name: str) -> set[bytes]:
        """The chunks on a node's disk, good or bad."""
        files = {bytes.fromhex(path.name) for path in self.nodes.files(name)}
        return files | records_below(self.nodes.folder / name).keys()

    @invariant()
    def nothing_is_lost(self) -> None:
        for chunk in self.chunks():
            assert self.holders(chunk) & set(self.living), chunk.hex()


def test_storage_is_a_dictionary() -> None:
    run_state_machine_as_test(
        Storage,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
