"""Keeps a `Cluster` as etcd has it, and says when it changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from lepton_ai.proto.v1 import deployment_pb2, job_pb2, node_pb2, storage_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.state import Change, Delete, Put, Record, Snapshot, State
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.measures import Measures

__all__ = ["TYPES", "Observer"]

# What is below each prefix.
TYPES: dict[str, Callable[[bytes], Any]] = {
    keys.NODES: node_pb2.Node.FromString,
    keys.JOBS: job_pb2.Job.FromString,
    keys.DEPLOYMENTS: deployment_pb2.Deployment.FromString,
    keys.TASKS: task_pb2.Task.FromString,
    keys.TASK_STATUS: task_pb2.TaskStatus.FromString,
    keys.MODELS: storage_pb2.Model.FromString,
    keys.ALIASES: storage_pb2.Alias.FromString,
    keys.CORDONED: bytes,
    keys.DRAINING: bytes,
}


class Observer:
    """Follows every prefix that decisions depend on.

    `changed` is set after each change; `revisions` holds the revision of each key's last write, so
    that what is decided from this view is written only where the view was right.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._records: dict[str, dict[str, Any]] = {prefix: {} for prefix in TYPES}
        self._seen: dict[str, int] = {}
        self.revisions: dict[str, int] = {}
        self.changed = asyncio.Event()
        self.complete = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for prefix in TYPES:
                tasks.create_task(self._follow(prefix))

    def has_seen(self, written: Mapping[str, int]) -> bool:
        """Whether the view holds these writes: the revision of each key's last one."""
        return all(
            self._seen.get(prefix, 0) >= revision
            for key, revision in written.items()
            for prefix in TYPES
            if key.startswith(prefix)
        )

    def nodes(self) -> list[node_pb2.Node]:
        """Every member that is alive."""
        return list(self._records[keys.NODES].values())

    def cluster(self, measures: Measures) -> Cluster:
        """The view, for one decision.

        Args:
            measures: What gateways report, which is not in etcd.
        """
        return Cluster(
            workers=self._of_role(node_pb2.NODE_ROLE_WORKER),
            gateways=self._of_role(node_pb2.NODE_ROLE_GATEWAY),
            measures=measures,
            jobs={job.id: job for job in self._records[keys.JOBS].values()},
            deployments={d.spec.name: d for d in self._records[keys.DEPLOYMENTS].values()},
            tasks={(t.node_id, t.id): t for t in self._records[keys.TASKS].values()},
            statuses={(s.node_id, s.task_id): s for s in self._records[keys.TASK_STATUS].values()},
            models={(m.name, m.version): m for m in self._records[keys.MODELS].values()},
            cordoned=self._named(keys.CORDONED),
            draining=self._named(keys.DRAINING),
            aliases={(a.model, a.name): a.version for a in self._records[keys.ALIASES].values()},
        )

    def _of_role(self, role: node_pb2.NodeRole) -> dict[str, node_pb2.Node]:
        return {node.id: node for node in self.nodes() if node.role == role}

    def _named(self, prefix: str) -> frozenset[str]:
        return frozenset(key.removeprefix(prefix) for key in self._records[prefix])

    async def _follow(self, prefix: str) -> None:
        async for change in self._state.watch(prefix):
            self.apply(prefix, change)

    def apply(self, prefix: str, change: Change) -> None:
        """Take in one change below a prefix; `run` does so as they come."""
        match change:
            case Snapshot(records=records, revision=revision):
                self._seen[prefix] = revision
                for key in self._records[prefix]:
                    self.revisions.pop(key, None)
                self._records[prefix].clear()
                for record in records:
                    self._put(prefix, record)
            case Put(record=record):
                self._seen[prefix] = record.mod_revision
                self._put(prefix, record)
            case Delete(key=key, revision=revision):
                self._seen[prefix] = revision
                self._records[prefix].pop(key, None)
                self.revisions.pop(key, None)
        if len(self._seen) == len(TYPES):
            self.complete.set()
        self.changed.set()

    def _put(self, prefix: str, record: Record) -> None:
        self._records[prefix][record.key] = TYPES[prefix](record.value)
        self.revisions[record.key] = record.mod_revision
