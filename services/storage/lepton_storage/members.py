"""The storage nodes that live now, and since when others do not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lepton_ai.proto.v1.node_pb2 import NODE_ROLE_STORAGE, Node
from lepton_runtime import keys
from lepton_runtime.clock import Clock
from lepton_runtime.state import Delete, Put, Record, Snapshot, State
from lepton_storage.placement import StorageNode, storage_node

__all__ = ["Members"]


class Members:
    """Living storage nodes, followed in the cluster's state.

    Args:
        state: Where nodes tell that they live.
        clock: Measures how long others are gone.
        silence_s: How long a node has been silent when the state forgets it.
    """

    def __init__(self, state: State, clock: Clock, silence_s: float) -> None:
        self._state = state
        self._clock = clock
        self._silence_s = silence_s
        self._left_at: dict[str, float] = {}
        self._nodes: dict[str, StorageNode] = {}
        self._draining: set[str] = set()
        self._read = asyncio.Event()

    @property
    def nodes(self) -> Mapping[str, StorageNode]:
        """Living nodes by id; it stays as it is when they change."""
        return self._nodes

    @property
    def left_at(self) -> Mapping[str, float]:
        """When nodes that were seen to go were last heard of, by the monotonic clock."""
        return self._left_at

    async def known(self) -> None:
        """Wait until they have been read once."""
        await self._read.wait()

    async def refresh(self) -> None:
        """Read them now: what is followed may be a moment behind."""
        self._replace((await self._state.list(keys.NODES)).records)

    async def follow(self) -> None:
        """Keep up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_draining())
            tasks.create_task(self._follow_nodes())

    async def _follow_draining(self) -> None:
        async for change in self._state.watch(keys.DRAINING):
            match change:
                case Snapshot(records=records):
                    self._draining = {_drained(record.key) for record in records}
                case Put(record=record):
                    self._draining.add(_drained(record.key))
                case Delete(key=key):
                    self._draining.discard(_drained(key))
            self._nodes = {name: self._marked(node) for name, node in self._nodes.items()}

    async def _follow_nodes(self) -> None:
        async for change in self._state.watch(keys.NODES):
            match change:
                case Snapshot(records=records):
                    self._replace(records)
                    self._read.set()
                case Put(record=record):
                    self._add(record)
                case Delete(key=key):
                    self._remove(key.removeprefix(keys.NODES))

    def _replace(self, records: Sequence[Record]) -> None:
        present = {record.key.removeprefix(keys.NODES) for record in records}
        for name in self._nodes.keys() - present:
            self._remove(name)
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        node = Node.FromString(record.value)
        if node.role == NODE_ROLE_STORAGE:
            self._nodes = {**self._nodes, node.id: self._marked(storage_node(node))}
            self._left_at.pop(node.id, None)

    def _remove(self, name: str) -> None:
        if name in self._nodes:
            self._nodes = {other: node for other, node in self._nodes.items() if other != name}
            self._left_at[name] = self._clock.monotonic() - self._silence_s

    def _marked(self, node: StorageNode) -> StorageNode:
        return replace(node, draining=node.id in self._draining)


def _drained(key: str) -> str:
    return key.removeprefix(keys.DRAINING)
