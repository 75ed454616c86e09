"""Decisions about deployments: replicas on distinct nodes, versions rolled without a gap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lepton_ai.proto.v1 import deployment_pb2, task_pb2
from lepton_scheduler.actions import Action, PlaceTask, RemoveTask, UpdateDeployment
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.placement import Claim, Rooms

__all__ = ["decide_deployments"]

_RETRY_S = 5.0


def decide_deployments(
    now: float, cluster: Cluster, rooms: Rooms, unplaced: list[Claim]
) -> Iterator[Action]:
    """Actions for all deployments.

    Args:
        now: Seconds since the epoch.
        cluster: What is wanted and what is there.
        rooms: What is free, kept up to date.
        unplaced: Gets the replicas that found no room.
    """
    for deployment in cluster.deployments.values():
        moved = followed(now, cluster, deployment)
        if moved is not None:
            yield UpdateDeployment(moved)
            continue  # the rest is decided on the deployment as it then is
        object_id = cluster.onnx_object(deployment.spec)
        one = _Deployment(now, cluster, rooms, deployment, object_id, unplaced)
        yield from one.decide()
    for task in list(cluster.tasks.values()):
        if task.replica.deployment and task.replica.deployment not in cluster.deployments:
            yield RemoveTask(task, "its deployment was deleted")


def followed(
    now: float, cluster: Cluster, deployment: deployment_pb2.Deployment
) -> deployment_pb2.Deployment | None:
    """The deployment at the version its alias moved to; None where it is there already."""
    spec = deployment.spec
    version = cluster.aliases.get((spec.model, spec.alias), spec.version)
    if not spec.alias or version == spec.version:
        return None
    fresh = deployment_pb2.Deployment()
    fresh.CopyFrom(deployment)
    fresh.spec.version = version
    fresh.generation += 1
    fresh.state = deployment_pb2.DEPLOYMENT_STATE_PROGRESSING
    fresh.reason = f"{spec.model}@{spec.alias} moved to version {version}"
    fresh.updated_at.FromNanoseconds(int(now * 1e9))
    return fresh


@dataclass
class _Deployment:
    now: float
    cluster: Cluster
    rooms: Rooms
    deployment: deployment_pb2.Deployment
    object_id: str
    unplaced: list[Claim]

    def decide(self) -> Iterator[Action]:
        spec = self.deployment.spec
        if not self.object_id or not self.cluster.steps(spec):
            return  # the view of models lags behind that of deployments
        tasks = self.cluster.of_deployment(spec.name)
        current = self._staying(tasks)
        wanted = [self._replica_id(i) for i in range(spec.replicas)]
        others = [t for t in tasks if t.id not in wanted or t is not current.get(t.id)]
        ready = len({t.id for t in tasks if t.id in wanted and self._is_ready(t)})
        for task in others:
            if self._may_go(task, current, wanted, ready):
                yield RemoveTask(task, "no longer wanted")
        placed = 0
        for task_id in wanted:
            for action in self._ensure(task_id, current.get(task_id), tasks):
                placed += 1
                yield action
        yield from self._stand(current, wanted, ready, placed)

    def _staying(self, tasks: list[task_pb2.Task]) -> dict[str, task_pb2.Task]:
        """The task of each replica, were nodes that are to be emptied empty already.

        A replica that leaves such a node has two for a while, also when the node is to stay after
        all.
        """
        version = self.deployment.spec.version
        mine = [t for t in tasks if t.replica.version == version and not self.cluster.must_leave(t)]
        return {task.id: task for task in sorted(mine, key=self._standing)}

    def _may_go(
        self,
        task: task_pb2.Task,
        current: dict[str, task_pb2.Task],
        wanted: list[str],
        ready: int,
    ) -> bool:
        """Whether nobody misses a task that is not to stay."""
        if task.replica.version != self.deployment.spec.version:
            return ready >= len(wanted)
        if task.id not in wanted or self.cluster.is_lost(task):
            return True
        return task.id in current and self._is_ready(current[task.id])

    def _ensure(
        self, task_id: str, task: task_pb2.Task | None, tasks: list[task_pb2.Task]
    ) -> Iterator[Action]:
        """Place a replica that is missing, lost, or failed a while ago."""
        if task is not None and not self.cluster.is_lost(task):
            if not self._may_try_again(task):
                return
            tasks.remove(task)
            self.rooms.give_back(task.node_id, task.resources)
        load = Counter(
            t.node_id
            for t in tasks
            if t.replica.version == self.deployment.spec.version and not self.cluster.is_lost(t)
        )
        need = self.deployment.spec.resources
        node_id = self.rooms.choose(need, load, at_most=1)
        if node_id is None:
            self.unplaced.append(Claim(need, frozenset(load)))
            return
        self.rooms.take(node_id, need)
        fresh = self._replica(task_id, node_id, (task.attempt if task else 0) + 1)
        tasks.append(fresh)
        yield PlaceTask(fresh, "lost or failed" if task else "wanted", replaces=task)

    def _may_try_again(self, task: task_pb2.Task) -> bool:
        status = self.cluster.status_of(task)
        if status.state != task_pb2.TASK_STATE_FAILED or status.user_error:
            return False
        return self.now >= status.updated_at.ToNanoseconds() / 1e9 + _RETRY_S

    def _replica(self, task_id: str, node_id: str, attempt: int) -> task_pb2.Task:
        spec = self.deployment.spec
        task = task_pb2.Task(
            id=task_id,
            node_id=node_id,
            node_incarnation=self.cluster.workers[node_id].incarnation,
            attempt=attempt,
            resources=spec.resources,
        )
        task.placed_at.FromNanoseconds(int(self.now * 1e9))
        task.replica.deployment = spec.name
        task.replica.model = spec.model
        task.replica.version = spec.version
        task.replica.object_id = self.object_id
        if spec.HasField("options"):
            task.replica.options.CopyFrom(spec.options)
        if spec.before or spec.after:
            task.replica.steps.extend(self.cluster.steps(spec))
        return task

    def _stand(
        self, current: dict[str, task_pb2.Task], wanted: list[str], ready: int, placed: int
    ) -> Iterator[Action]:
        state, reason = self._verdict(current, wanted, ready, placed)
        old = self.deployment
        if (old.state, old.reason, old.ready_replicas) == (state, reason, ready):
            return
        fresh = deployment_pb2.Deployment()
        fresh.CopyFrom(old)
        fresh.state, fresh.reason, fresh.ready_replicas = state, reason, ready
        fresh.updated_at.FromNanoseconds(int(self.now * 1e9))
        yield UpdateDeployment(fresh)

    def _verdict(
        self, current: dict[str, task_pb2.Task], wanted: list[str], ready: int, placed: int
    ) -> tuple[deployment_pb2.DeploymentState, str]:
        statuses = [self.cluster.status_of(t) for t in current.values()]
        failed = next((s for s in statuses if s.state == task_pb2.TASK_STATE_FAILED), None)
        if failed is not None:
            return deployment_pb2.DEPLOYMENT_STATE_FAILED, failed.reason
        if ready >= len(wanted):
            return deployment_pb2.DEPLOYMENT_STATE_READY, f"{ready} replicas answer"
        on_the_way = placed + sum(
            i in current and not self.cluster.is_lost(current[i]) for i in wanted
        )
        if on_the_way < len(wanted):
            return (
                deployment_pb2.DEPLOYMENT_STATE_DEGRADED,
                f"{ready} of {len(wanted)} replicas answer; no other node has room",
            )
        return (
            deployment_pb2.DEPLOYMENT_STATE_PROGRESSING,
            f"{ready} of {len(wanted)} replicas answer",
        )

    def _standing(self, task: task_pb2.Task) -> tuple[bool, bool]:
        return not self.cluster.is_lost(task), self._is_ready(task)

    def _is_ready(self, task: task_pb2.Task) -> bool:
        running = self.cluster.status_of(task).state == task_pb2.TASK_STATE_RUNNING
        return running and not self.cluster.is_lost(task)

    def _replica_id(self, index: int) -> str:
        return f"{self.deployment.spec.name}-v{self.deployment.spec.version}-{index}"
