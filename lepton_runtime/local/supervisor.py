"""Starts a local cluster, keeps it running, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable

from lepton_ai.cluster.profile import Profile
from lepton_ai.errors import UnavailableError
from lepton_runtime import keys
from lepton_runtime.auth import make_keys
from lepton_runtime.etcd import EtcdState
from lepton_runtime.local.child import Child, keep_server
from lepton_runtime.local.plan import ClusterPlan, environment_of, services_of
from lepton_runtime.servers import ServerProcess, start_etcd, start_nats

__all__ = ["running_cluster"]

_READY_S = 30.0
_POLL_S = 0.05


@contextlib.asynccontextmanager
async def running_cluster(
    plan: ClusterPlan, tell: Callable[[str], None]
) -> AsyncGenerator[Profile]:
    """A cluster that is ready; dead services are started again; all are ended at the end.

    Args:
        plan: What to start.
        tell: Called with each step, for people.

    Raises:
        UnavailableError: A service did not start; names its log.
    """
    plan.logs.mkdir(parents=True, exist_ok=True)
    make_keys(plan.keys, time.time())
    profile = Profile(plan.gateway_address, (plan.keys / "admin.token").read_text())
    async with contextlib.AsyncExitStack() as stack:
        tell("starting etcd and nats-server")
        etcd, nats = await _start_servers(plan, stack)
        tell(f"starting {plan.workers} workers, {plan.storage} storage nodes, scheduler, gateway")
        children = await _start_services(plan, etcd.address, nats.address, stack)
        await stack.enter_async_context(_kept(children, [etcd, nats]))
        await _until_ready(children, etcd.address)
        profile.write(plan.home)
        yield profile


async def _start_servers(
    plan: ClusterPlan, stack: contextlib.AsyncExitStack
) -> tuple[ServerProcess, ServerProcess]:
    etcd = await start_etcd(plan.home / "servers")
    stack.push_async_callback(etcd.stop)
    nats = await start_nats(plan.home / "servers")
    stack.push_async_callback(nats.stop)
    return etcd, nats


async def _start_services(
    plan: ClusterPlan, etcd: str, nats: str, stack: contextlib.AsyncExitStack
) -> list[Child]:
    children = [
        Child(
            service,
            {**os.environ, **environment_of(plan, service, etcd, nats)},
            plan.logs / f"{service.node_id}.log",
        )
        for service in services_of(plan)
    ]
    stack.push_async_callback(_stop_all, children)
    for child in children:
        await child.start()
    return children


async def _stop_all(children: list[Child]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for child in children:
            tasks.create_task(child.stop())


async def _until_ready(children: list[Child], etcd: str) -> None:
    wanted = {keys.node(child.service.node_id) for child in children}
    state = EtcdState((etcd,))
    present: set[str] = set()
    try:
        async with asyncio.timeout(_READY_S):
            while not wanted <= present:
                for child in children:
                    child.check()
                present = {record.key for record in (await state.list(keys.NODES)).records}
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        missing = ", ".join(sorted(key.rpartition("/")[2] for key in wanted - present))
        raise UnavailableError(f"not ready after {_READY_S:.0f} s: {missing}") from None
    finally:
        await state.close()


@contextlib.asynccontextmanager
async def _kept(children: list[Child], servers: list[ServerProcess]) -> AsyncGenerator[None]:
    keepers = [asyncio.create_task(child.keep()) for child in children]
    keepers += [asyncio.create_task(keep_server(server)) for server in servers]
    try:
        yield
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
