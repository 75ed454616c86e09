"""The loop of the scheduler that leads: look, decide, write; and tell what happened."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog
from google.protobuf.message import DecodeError, Message

from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1 import deployment_pb2, event_pb2, job_pb2, node_pb2, serving_pb2
from lepton_runtime.bus import SERVING, Bus
from lepton_runtime.clock import Clock
from lepton_runtime.election import Election, Leadership
from lepton_runtime.events import publish_event
from lepton_runtime.state import State, Write
from lepton_scheduler.actions import (
    Action,
    PlaceGang,
    PlaceTask,
    RemoveTask,
    UpdateDeployment,
    UpdateJob,
    UpdateTask,
)
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.core import decide
from lepton_scheduler.measures import Measures
from lepton_scheduler.observer import Observer
from lepton_scheduler.transactions import transaction

__all__ = ["Leader"]

_log = structlog.get_logger("lepton.scheduler")
# Decisions that depend on time alone (limits) wait at most this long.
_TICK_S = 1.0
_RETRY_S = 0.5
_REPORTS = 10_000  # of gateways, between two rounds; older ones are dropped
_UNTOLD = 1_000  # events that wait for a broker that is away; further ones are dropped


class Leader:
    """Campaigns, and while it leads makes the cluster what is wanted.

    Every write carries the leader's fencing condition: a scheduler that was replaced without
    noticing writes nothing.
    """

    def __init__(
        self, state: State, bus: Bus, clock: Clock, election: Election, node_id: str
    ) -> None:
        self._state = state
        self._bus = bus
        self._clock = clock
        self._election = election
        self._node_id = node_id
        self._news: asyncio.Queue[Message] = asyncio.Queue(_UNTOLD)

    async def run(self) -> None:
        """Campaign and lead, again and again, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish())
            while True:
                try:
                    await self._term()
                except* LeptonError as group:
                    _log.warning("cannot lead now", reasons=[str(e) for e in group.exceptions])
                await self._clock.sleep(_RETRY_S)

    async def _term(self) -> None:
        """Win, lead, and give up the key: a lease that were kept would shut everyone out."""
        try:
            leadership = await self._election.campaign()
            token = leadership.token
            _log.info("leads", fencing_token=token)
            self._tell(event_pb2.LeaderElected(node_id=self._node_id, fencing_token=token))
            await self._lead(leadership)
            _log.warning("no longer leads", fencing_token=token)
        finally:
            await self._election.resign()

    async def _lead(self, leadership: Leadership) -> None:
        """Decide until deposed."""
        while not leadership.lost.is_set():
            try:
                await self._lead_on_one_view(leadership)
            except* LeptonError as group:
                # Whether the write came through is not known: the view is not known to be right.
                _log.warning("looks afresh", reasons=[str(e) for e in group.exceptions])
                await self._clock.sleep(_RETRY_S)

    async def _lead_on_one_view(self, leadership: Leadership) -> None:
        """Decide on a view of its own until deposed, or until a write has no answer."""
        observer, measures = Observer(self._state), Measures()
        reports: deque[tuple[float, serving_pb2.ServingReport]] = deque(maxlen=_REPORTS)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(observer.run())
            telling = tasks.create_task(self._tell_membership(observer))
            hearing = tasks.create_task(self._hear(observer, reports))
            await _first(observer.complete, leadership.lost)
            written: dict[str, int] = {}
            while not leadership.lost.is_set():
                observer.changed.clear()
                # Deciding again before one's own writes are in view would place work twice.
                if observer.has_seen(written):
                    while reports:
                        measures.add(*reports.popleft())
                    written = await self._round(observer, measures, leadership)
                await _first(observer.changed, leadership.lost, _TICK_S)
            watching.cancel()
            telling.cancel()
            hearing.cancel()

    async def _hear(
        self, observer: Observer, reports: deque[tuple[float, serving_pb2.ServingReport]]
    ) -> None:
        """Collect for the next round what gateways report of the requests they carry."""
        async for message in self._bus.listen(f"{SERVING}.*"):
            try:
                report = serving_pb2.ServingReport.FromString(message.payload)
            except DecodeError:
                _log.warning("report not readable", subject=message.subject)
                continue
            reports.append((self._clock.now(), report))
            if report.deployments:
                observer.changed.set()

    async def _round(
        self, observer: Observer, measures: Measures, leadership: Leadership
    ) -> dict[str, int]:
        """Decide and write; answers the revision at which each key was written."""
        written: dict[str, int] = {}
        cluster = observer.cluster(measures)
        # As they are now: what somebody changes while actions are written makes later ones fail.
        revisions = dict(observer.revisions)
        measures.forget(cluster.deployments)
        # Thousands of nodes take a while, in which the lease must be renewed.
        for action in await asyncio.to_thread(decide, self._clock.now(), cluster):
            conditions, operations = transaction(action, revisions, leadership.token)
            revision = await self._state.commit([leadership.condition, *conditions], operations)
            if revision is None:
                _log.info("decision overtaken", action=_name(action))
                break  # the view was old: look again
            written |= {o.key: revision for o in operations if isinstance(o, Write)}
            self._announce(action, cluster)
        return written

    def _announce(self, action: Action, cluster: Cluster) -> None:
        match action:
            case PlaceGang(job=job, tasks=tasks):
                for task in tasks:
                    self._announce(PlaceTask(task, "a job begins"), cluster)
                self._announce(UpdateJob(job), cluster)
            case PlaceTask(task=task, reason=reason):
                _log.info("task placed", task=task.id, worker=task.node_id, reason=reason)
                self._tell(event_pb2.TaskPlaced(task=task, reason=reason))
            case UpdateJob(job=job):
                _log.info(
                    "job moved",
                    job=job.id,
                    state=job_pb2.JobState.Name(job.state),
                    reason=job.reason,
                )
                previous = cluster.jobs[job.id].state
                self._tell(event_pb2.JobStateChanged(job=job, previous=previous))
            case UpdateDeployment(deployment=deployment):
                if _only_counts(cluster.deployments[deployment.spec.name], deployment):
                    return
                _log.info(
                    "deployment changed",
                    deployment=deployment.spec.name,
                    reason=deployment.reason,
                )
                self._tell(event_pb2.DeploymentChanged(deployment=deployment))
            case RemoveTask(task=task, reason=reason):
                _log.info("task removed", task=task.id, worker=task.node_id, reason=reason)
                self._tell(event_pb2.TaskFinished(status=cluster.status_of(task), reason=reason))
            case UpdateTask(task=task, reason=reason):
                _log.info("task changed", task=task.id, reason=reason)

    async def _tell_membership(self, observer: Observer) -> None:
        """Publish who came and who went."""
        await observer.complete.wait()
        known = {node.id: node.incarnation for node in observer.nodes()}
        while True:
            await self._clock.sleep(_TICK_S / 2)
            nodes = {node.id: node for node in observer.nodes()}
            for node_id, incarnation in known.items():
                if node_id not in nodes or nodes[node_id].incarnation != incarnation:
                    self._node_lost(node_id, incarnation)
            for node in nodes.values():
                if known.get(node.id) != node.incarnation:
                    self._node_joined(node)
            known = {node.id: node.incarnation for node in nodes.values()}

    def _node_joined(self, node: node_pb2.Node) -> None:
        _log.info("node joined", joined=node.id)
        self._tell(event_pb2.NodeJoined(node=node))

    def _node_lost(self, node_id: str, incarnation: str) -> None:
        _log.warning("node lost", lost=node_id)
        self._tell(event_pb2.NodeLost(node_id=node_id, incarnation=incarnation))

    def _tell(self, message: Message) -> None:
        """Publish soon. A broker that is away holds up no decision."""
        try:
            self._news.put_nowait(message)
        except asyncio.QueueFull:
            _log.warning("event dropped", event_type=message.DESCRIPTOR.name)

    async def _publish(self) -> None:
        while True:
            message = await self._news.get()
            await publish_event(self._bus, self._clock, self._node_id, message)


def _only_counts(before: deployment_pb2.Deployment, after: deployment_pb2.Deployment) -> bool:
    """Whether nothing has changed but the figures of a comparison."""
    same = deployment_pb2.Deployment()
    same.CopyFrom(after)
    same.agreement.CopyFrom(before.agreement)
    same.updated_at.CopyFrom(before.updated_at)
    return same == before


def _name(action: Action) -> str:
    return type(action).__name__


async def _first(one: asyncio.Event, other: asyncio.Event, timeout_s: float | None = None) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
