"""Decisions about deployments: replicas on distinct nodes, versions rolled without a gap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lepton_ai.proto.v1 import deployment_pb2, task_pb2
from lepton_scheduler.actions import Action, PlaceTask, RemoveTask, UpdateDeployment, UpdateTask
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.placement import Claim, Rooms
from lepton_scheduler.rollout import Standing, roll
from lepton_scheduler.scaling import wanted_replicas

__all__ = ["decide_deployments"]

_RETRY_S = 5.0
# After this long nobody waits for an answer any more.
_LONGEST_REQUEST_S = 60.0


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
        yield from _Deployment(now, cluster, rooms, deployment, unplaced).decide()
    for task in list(cluster.tasks.values()):
        if task.replica.deployment and task.replica.deployment not in cluster.deployments:
            yield RemoveTask(task, "its deployment was deleted")


@dataclass
class _Deployment:
    now: float
    cluster: Cluster
    rooms: Rooms
    record: deployment_pb2.Deployment
    unplaced: list[Claim]
    fresh: deployment_pb2.Deployment = field(init=False)
    tasks: list[task_pb2.Task] = field(init=False)

    def __post_init__(self) -> None:
        self.fresh = deployment_pb2.Deployment()
        self.fresh.CopyFrom(self.record)
        self.tasks = self.cluster.of_deployment(self.record.spec.name)

    def decide(self) -> Iterator[Action]:
        self._follow_alias()
        self.fresh.wanted_replicas = wanted_replicas(self.now, self.cluster, self.fresh)
        roll(self.now, self.cluster, self.fresh, self._standings())
        held = self._held()
        fates = {_key(task): self._fate(task, held) for task in self.tasks}
        for task in self.tasks:
            if fates[_key(task)] == "goes":
                yield RemoveTask(task, "no longer wanted")
        self._let_go(fates)
        placed = Counter[int]()
        for version in self._asked_for(held):
            for index in range(self.fresh.wanted_replicas):
                for action in self._ensure(version, index):
                    placed[version] += 1
                    yield action
            yield from self._renew(version)
        self._stand(held, placed)
        if self.fresh != self.record:
            self.fresh.updated_at.FromNanoseconds(int(self.now * 1e9))
            yield UpdateDeployment(self.fresh)

    def _follow_alias(self) -> None:
        """Ask for the version that the deployment's alias moved to."""
        spec = self.fresh.spec
        version = self.cluster.aliases.get((spec.model, spec.alias), spec.version)
        if spec.alias and version != spec.version:
            spec.version = version
            self.fresh.generation += 1

    def _held(self) -> list[int]:
        """The versions that have replicas, the most important first."""
        serving = self.fresh.serving_version or self.fresh.spec.version
        if not self.fresh.HasField("rollout"):
            return [serving]
        return [serving, self.fresh.rollout.version]

    def _asked_for(self, held: list[int]) -> list[int]:
        """Those that replicas are made for: not one that only lingers until the other answers."""
        return [version for version in held if version in (held[0], self.fresh.spec.version)]

    def _standings(self) -> dict[int, Standing]:
        versions = {task.replica.version for task in self.tasks}
        return {
            version: Standing(self._ready(version), self._failure(version)) for version in versions
        }

    def _ready(self, version: int) -> int:
        wanted = self._replica_ids(version)
        return len({t.id for t in self.tasks if t.id in wanted and self._is_ready(t)})

    def _failure(self, version: int) -> str:
        """Why a version can never answer."""
        for task in self.tasks:
            status = self.cluster.status_of(task)
            failed = status.state == task_pb2.TASK_STATE_FAILED and status.user_error
            if failed and task.replica.version == version:
                return status.reason
        return ""

    def _current(self, version: int) -> dict[str, task_pb2.Task]:
        """The task of each replica, were nodes that are to be emptied empty already.

        A replica that leaves such a node has two for a while, also when the node is to stay after
        all.
        """
        mine = [
            t for t in self.tasks if t.replica.version == version and not self.cluster.must_leave(t)
        ]
        return {task.id: task for task in sorted(mine, key=self._standing)}

    def _fate(self, task: task_pb2.Task, held: list[int]) -> str:
        """Whether a task "stays", "leaves" (gets no further requests) or "goes" (is stopped).

        What answers leaves first, and goes when every gateway has taken note.
        """
        version = task.replica.version
        successor = self._current(version).get(task.id)
        if version in held and task.id in self._replica_ids(version):
            moved = successor is not None and self._is_ready(successor)
            if successor is task or not (moved or self.cluster.is_lost(task)):
                return "stays"
        if not self._is_ready(task):
            return "goes"
        if _key(task) in self.record.leaving:
            return "goes" if self._carried_out() else "leaves"
        return "leaves" if version in held or self._is_over(version) else "stays"

    def _carried_out(self) -> bool:
        return self.cluster.measures.carried_out(self.cluster.gateways, self.record)

    def _is_over(self, version: int) -> bool:
        """Whether requests to a version that gets none any more are answered."""
        if any(share.version == version for share in self.record.traffic):
            return False
        if not self._carried_out():
            return False
        changed = self.record.traffic_changed_at.ToNanoseconds() / 1e9
        under_way = self.cluster.measures.outstanding(
            self.now, self.cluster.gateways, self.record.spec.name, version
        )
        return under_way == 0 or self.now > changed + _LONGEST_REQUEST_S

    def _let_go(self, fates: Mapping[str, str]) -> None:
        """Have gateways send no further requests to those that leave."""
        leaving = sorted(key for key, fate in fates.items() if fate == "leaves")
        if leaving != [key for key in self.record.leaving if fates.get(key, "goes") != "goes"]:
            self.fresh.traffic_revision += 1
            self.fresh.traffic_changed_at.FromNanoseconds(int(self.now * 1e9))
        self.fresh.leaving[:] = leaving

    def _ensure(self, version: int, index: int) -> Iterator[Action]:
        """Place a replica that is missing, lost, or failed a while ago."""
        spec = self._spec(version)
        if not self.cluster.steps(spec):
            return  # the view of models lags behind that of deployments
        task_id = self._replica_id(version, index)
        task = self._current(version).get(task_id)
        if task is not None and not self.cluster.is_lost(task):
            if not self._may_try_again(task):
                return
            self.tasks.remove(task)
            self.rooms.give_back(task.node_id, task.resources)
        load = Counter(
            t.node_id
            for t in self.tasks
            if t.replica.version == version and not self.cluster.is_lost(t)
        )
        need = spec.resources
        labels = spec.labels
        node_id = self.rooms.choose(need, load, labels, at_most=1)
        if node_id is None:
            self.unplaced.append(Claim(need, frozenset(load), labels))
            return
        self.rooms.take(node_id, need)
        attempt = (task.attempt if task else 0) + 1
        fresh = self._replica(spec, task_id, node_id, attempt)
        self.tasks.append(fresh)
        yield PlaceTask(fresh, "lost or failed" if task else "wanted", replaces=task)

    def _may_try_again(self, task: task_pb2.Task) -> bool:
        status = self.cluster.status_of(task)
        if status.state != task_pb2.TASK_STATE_FAILED or status.user_error:
            return False
        return self.now >= status.updated_at.ToNanoseconds() / 1e9 + _RETRY_S

    def _spec(self, version: int) -> deployment_pb2.DeploymentSpec:
        """The spec by which a version serves: the one that asked for it."""
        serving = version == self.fresh.serving_version and version != self.fresh.spec.version
        return self.fresh.serving_spec if serving else self.fresh.spec

    def _replica(
        self, spec: deployment_pb2.DeploymentSpec, task_id: str, node_id: str, attempt: int
    ) -> task_pb2.Task:
        task = task_pb2.Task(
            id=task_id,
            node_id=node_id,
            node_incarnation=self.cluster.workers[node_id].incarnation,
            attempt=attempt,
            resources=spec.resources,
        )
        task.placed_at.FromNanoseconds(int(self.now * 1e9))
        task.replica.CopyFrom(self._served(spec))
        return task

    def _served(self, spec: deployment_pb2.DeploymentSpec) -> task_pb2.ReplicaTask:
        """What a replica of a version serves, and how."""
        served = task_pb2.ReplicaTask(
            deployment=spec.name,
            model=spec.model,
            version=spec.version,
            object_id=self.cluster.onnx_object(spec),
        )
        if spec.HasField("options"):
            served.options.CopyFrom(spec.options)
        if spec.before or spec.after:
            served.steps.extend(self.cluster.steps(spec))
        return served

    def _renew(self, version: int) -> Iterator[Action]:
        """Have replicas serve as the spec says by now, one after the other.

        Each swaps without a gap, and keeps what it has where it cannot: then the others are left
        as they are.
        """
        wanted = self._wanted(version)
        if wanted is None:
            return
        for task_id, task in sorted(self._answering(version).items()):
            if task.replica != wanted:
                fresh = task_pb2.Task()
                fresh.CopyFrom(task)
                fresh.replica.CopyFrom(wanted)
                self.tasks[self.tasks.index(task)] = fresh
                yield UpdateTask(fresh, f"{task_id} is to be served in another way")
            if self.cluster.status_of(task).replica != wanted:
                return

    def _wanted(self, version: int) -> task_pb2.ReplicaTask | None:
        """What replicas of a version are to serve; None while its models have not been seen."""
        spec = self._spec(version)
        return self._served(spec) if self.cluster.steps(spec) else None

    def _answering(self, version: int) -> dict[str, task_pb2.Task]:
        """The task of each replica that answers."""
        current = self._current(version)
        return {task_id: task for task_id, task in current.items() if self._is_ready(task)}

    def _unrenewed(self, version: int) -> tuple[int, str]:
        """How many replicas do not serve yet as the spec says, and why one cannot."""
        wanted = self._wanted(version)
        if wanted is None:
            return 0, ""
        statuses = map(self.cluster.status_of, self._answering(version).values())
        behind = [status for status in statuses if status.replica != wanted]
        return len(behind), next((status.reason for status in behind if status.reason), "")

    def _stand(self, held: list[int], placed: Counter[int]) -> None:
        """Say how it stands."""
        fresh, serving = self.fresh, held[0]
        fresh.ready_replicas = self._ready(serving)
        fresh.state, fresh.reason = self._verdict(serving, placed[serving])
        if fresh.state != deployment_pb2.DEPLOYMENT_STATE_READY:
            return
        others = {t.replica.version for t in self.tasks if t.replica.version not in held}
        if others:
            fresh.state = deployment_pb2.DEPLOYMENT_STATE_PROGRESSING
            fresh.reason = f"version {min(others)} answers its last requests"
        elif fresh.rejected_generation == fresh.generation:
            fresh.state = deployment_pb2.DEPLOYMENT_STATE_ROLLED_BACK
            fresh.reason = fresh.rejected_reason
        elif fresh.HasField("rollout"):
            fresh.state, fresh.reason = self._rollout_verdict()

    def _rollout_verdict(self) -> tuple[deployment_pb2.DeploymentState, str]:
        rollout, serving = self.fresh.rollout, self.fresh.serving_version
        carried_out = self.record.shadow == self.fresh.shadow and self._carried_out()
        if self.fresh.HasField("shadow") and not rollout.percent:
            return self._shadow_verdict(carried_out)
        if not rollout.percent:
            ready = (
                f"{self._ready(rollout.version)} of {self.fresh.wanted_replicas} replicas answer"
            )
            reason = f"version {rollout.version} is to follow {serving}: {ready}"
            return deployment_pb2.DEPLOYMENT_STATE_PROGRESSING, reason
        reason = f"{rollout.percent} % of requests go to version {rollout.version}"
        held = rollout.percent == self.fresh.spec.rollout.hold_percent
        if held and carried_out and self.record.traffic == self.fresh.traffic:
            return deployment_pb2.DEPLOYMENT_STATE_READY, reason
        return deployment_pb2.DEPLOYMENT_STATE_PROGRESSING, reason

    def _shadow_verdict(self, carried_out: bool) -> tuple[deployment_pb2.DeploymentState, str]:
        shadow = self.fresh.shadow
        compared = f"{shadow.percent} % of requests are mirrored to version {shadow.version}"
        if not self.fresh.spec.rollout.shadow_percent:
            reason = f"{compared}, which has to agree with {shadow.beside}"
            return deployment_pb2.DEPLOYMENT_STATE_PROGRESSING, reason
        if carried_out:
            return deployment_pb2.DEPLOYMENT_STATE_READY, compared
        return deployment_pb2.DEPLOYMENT_STATE_PROGRESSING, compared

    def _verdict(self, version: int, placed: int) -> tuple[deployment_pb2.DeploymentState, str]:
        wanted, ready = self.fresh.wanted_replicas, self._ready(version)
        current = self._current(version)
        for status in map(self.cluster.status_of, current.values()):
            if status.state == task_pb2.TASK_STATE_FAILED:
                return deployment_pb2.DEPLOYMENT_STATE_FAILED, status.reason
        if not wanted and current:
            reason = "its last replica answers its last requests"
            return deployment_pb2.DEPLOYMENT_STATE_PROGRESSING, reason
        if not wanted:
            return deployment_pb2.DEPLOYMENT_STATE_ASLEEP, "the next request wakes it"
        behind, why = self._unrenewed(version)
        if ready >= wanted and why:
            return deployment_pb2.DEPLOYMENT_STATE_FAILED, f"served as before: {why}"
        if ready >= wanted and behind:
            reason = f"{ready - behind} of {ready} replicas serve in the new way"
            return deployment_pb2.DEPLOYMENT_STATE_PROGRESSING, reason
        if ready >= wanted and self._all_known(version, wanted):
            return deployment_pb2.DEPLOYMENT_STATE_READY, f"{ready} replicas answer"
        if ready >= wanted:
            reason = f"{ready} replicas answer, not all of which every gateway knows yet"
            return deployment_pb2.DEPLOYMENT_STATE_PROGRESSING, reason
        on_the_way = placed + sum(
            i in current and not self.cluster.is_lost(current[i])
            for i in self._replica_ids(version)
        )
        if on_the_way < wanted:
            return (
                deployment_pb2.DEPLOYMENT_STATE_DEGRADED,
                f"{ready} of {wanted} replicas answer; no other node has room",
            )
        return (
            deployment_pb2.DEPLOYMENT_STATE_PROGRESSING,
            f"{ready} of {wanted} replicas answer",
        )

    def _all_known(self, version: int, replicas: int) -> bool:
        """Whether the loss of one replica would find gateways asking the others.

        What was announced stays so, whatever gateways say of it later.
        """
        record = self.record
        announced = record.state == deployment_pb2.DEPLOYMENT_STATE_READY
        if announced and record.serving_version == version and record.ready_replicas >= replicas:
            return True
        measures, gateways = self.cluster.measures, self.cluster.gateways
        return measures.all_known(gateways, record.spec.name, version, replicas)

    def _standing(self, task: task_pb2.Task) -> tuple[bool, bool]:
        return not self.cluster.is_lost(task), self._is_ready(task)

    def _is_ready(self, task: task_pb2.Task) -> bool:
        running = self.cluster.status_of(task).state == task_pb2.TASK_STATE_RUNNING
        return running and not self.cluster.is_lost(task)

    def _replica_ids(self, version: int) -> list[str]:
        return [self._replica_id(version, i) for i in range(self.fresh.wanted_replicas)]

    def _replica_id(self, version: int, index: int) -> str:
        return f"{self.fresh.spec.name}-v{version}-{index}"


def _key(task: task_pb2.Task) -> str:
    return f"{task.node_id}/{task.id}"
