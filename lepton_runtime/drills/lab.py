"""A cluster of its own on this machine, of which every process can be hurt."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from lepton_ai.cluster.client import AsyncCluster
from lepton_ai.cluster.profile import Profile
from lepton_ai.data_plane import DataPlane
from lepton_ai.errors import DeadlineExceededError
from lepton_ai.objects import ObjectClient
from lepton_ai.proto.v1 import node_pb2, worker_pb2, worker_pb2_grpc
from lepton_ai.rpc import open_channel, translated_errors
from lepton_runtime import keys
from lepton_runtime.auth import make_keys
from lepton_runtime.drills.link import Link, open_link
from lepton_runtime.etcd import EtcdState
from lepton_runtime.local.child import Child
from lepton_runtime.local.plan import ClusterPlan, Service, environment_of, services_of
from lepton_runtime.nats import NatsBus
from lepton_runtime.processes import free_port
from lepton_runtime.servers import ServerProcess, start_etcd, start_nats

__all__ = ["Lab", "Layout", "open_lab", "until"]

_READY_S = 60.0
_CALL_S = 5.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Layout:
    """What a drill needs: worker nodes, and schedulers, each with a link to etcd of its own.

    Attributes:
        workers: How many worker nodes.
        schedulers: How many schedulers.
        rank_cpus: What a rank of the drill's job claims.
    """

    workers: int = 2
    schedulers: int = 1
    rank_cpus: float = 0.1


@dataclass
class Lab:
    """The processes, and the ways to look at them. Nothing starts again unless a drill says so."""

    plan: ClusterPlan
    profile: Profile
    etcd: ServerProcess
    nats: ServerProcess
    links: dict[str, Link]
    nodes: dict[str, Child]
    state: EtcdState
    bus: NatsBus
    cluster: AsyncCluster
    objects: ObjectClient

    @property
    def workers(self) -> list[str]:
        """Ids of worker nodes, whether they are up or not."""
        return sorted(name for name in self.nodes if name.startswith("worker-"))

    async def start_node(self, service: Service) -> None:
        """Start a node, again or for the first time."""
        etcd = self.links[service.node_id].address if service.node_id in self.links else None
        variables = environment_of(self.plan, service, etcd or self.etcd.address, self.nats.address)
        log = self.plan.logs / f"{service.node_id}.log"
        self.nodes[service.node_id] = Child(service, {**os.environ, **variables}, log)
        await self.nodes[service.node_id].start()

    async def node(self, node_id: str) -> node_pb2.Node | None:
        """The record of a member, while it is one."""
        record = await self.state.get(keys.node(node_id))
        return node_pb2.Node.FromString(record.value) if record else None

    async def described(self, node_id: str) -> worker_pb2.DescribeWorkerResponse:
        """What runs on a worker, process by process; nothing while it is no member."""
        node = await self.node(node_id)
        if node is None:
            return worker_pb2.DescribeWorkerResponse()
        token = (self.plan.keys / "service.token").read_text()
        async with open_channel(node.address, token) as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            async with translated_errors():
                request = worker_pb2.DescribeWorkerRequest()
                return await stub.DescribeWorker(request, timeout=_CALL_S)

    async def ready(self) -> None:
        """Start what is down, and wait until every node is a member again."""
        for child in list(self.nodes.values()):
            if not child.is_up:
                await self.start_node(child.service)
        await until(self._all_are_members, "every node is a member", _READY_S)
        await until(self._all_are_warm, "every worker has a trainer ready", _READY_S)

    async def _all_are_warm(self) -> bool:
        described = [await self.described(name) for name in self.workers]
        return all(worker.warm_trainers for worker in described)

    async def _all_are_members(self) -> bool:
        present = {record.key for record in (await self.state.list(keys.NODES)).records}
        return {keys.node(name) for name in self.nodes} <= present


async def until(holds: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 30.0) -> float:
    """Wait until something holds; answers when that was, in seconds since the epoch.

    Raises:
        DeadlineExceededError: It does not come to hold; says `what`.
    """
    deadline = time.monotonic() + timeout_s
    while not await holds():
        if time.monotonic() > deadline:
            raise DeadlineExceededError(f"after {timeout_s:g} s it does not hold that {what}")
        await asyncio.sleep(_POLL_S)
    return time.time()


@contextlib.asynccontextmanager
async def open_lab(home: Path, layout: Layout) -> AsyncGenerator[Lab]:
    """A cluster that is ready; it is ended at the end."""
    plan = ClusterPlan(home, free_port(), layout.workers, storage=2)
    plan.logs.mkdir(parents=True, exist_ok=True)
    make_keys(plan.keys, time.time())
    profile = Profile(plan.gateway_address, (plan.keys / "admin.token").read_text())
    async with contextlib.AsyncExitStack() as stack:
        etcd = await start_etcd(plan.home / "servers")
        stack.push_async_callback(etcd.stop)
        nats = await start_nats(plan.home / "servers")
        stack.push_async_callback(nats.stop)
        schedulers = [f"scheduler-{number + 1}" for number in range(layout.schedulers)]
        links = {
            name: await stack.enter_async_context(open_link(etcd.address)) for name in schedulers
        }
        state = EtcdState([etcd.address])
        stack.push_async_callback(state.close)
        bus = await NatsBus.connect([f"nats://{nats.address}"])
        stack.push_async_callback(bus.close)
        cluster = AsyncCluster(profile.address, profile.api_key)
        door = DataPlane([profile.address], profile.api_key, None, direct=True)
        stack.callback(door.close)
        lab = Lab(plan, profile, etcd, nats, links, {}, state, bus, cluster, ObjectClient(door))
        stack.push_async_callback(_stop, lab)
        standbys = [Service(name, "lepton_scheduler", {}) for name in schedulers[1:]]
        for service in [*services_of(plan), *standbys]:
            await lab.start_node(service)
        await lab.ready()
        stack.push_async_callback(cluster.close)
        yield lab


async def _stop(lab: Lab) -> None:
    for link in lab.links.values():
        link.mend()
    await asyncio.gather(*(child.stop() for child in lab.nodes.values()))
