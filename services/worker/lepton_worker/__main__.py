"""Puts a worker's agent together and runs it: `python -m lepton_worker`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import structlog

from lepton_ai.proto.v1 import node_pb2, worker_pb2, worker_pb2_grpc
from lepton_runtime.membership import join
from lepton_runtime.server import GrpcServer, Servicer
from lepton_runtime.service import Runtime, run
from lepton_worker.agent import Agent, StatusWriter
from lepton_worker.devices import Devices
from lepton_worker.inference_server import InferenceServer
from lepton_worker.runners import Runners
from lepton_worker.servicer import WorkerServicer
from lepton_worker.settings import WorkerSettings
from lepton_worker.storage import WorkerStorage

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.worker")
_GRACE_S = 1.0


async def main(settings: WorkerSettings, runtime: Runtime) -> None:
    """Run what is placed here until told to stop."""
    inference = InferenceServer(
        settings.listen, settings.inference_threads, settings.inference_memory_bytes
    )
    statuses = StatusWriter(runtime.state, settings.node_id)
    storage = WorkerStorage(runtime.state, settings, runtime.clock)
    folder = settings.data_dir / "runs"
    runners = Runners(
        runtime.state,
        runtime.bus,
        statuses,
        storage,
        inference,
        folder,
        settings.listen,
        Devices(settings.gpus),
    )
    agent = Agent(runtime.state, settings.node_id, runtime.incarnation, runners, statuses)
    async with asyncio.TaskGroup() as tasks:
        works = (runners.tell, inference.run, runners.keep_warm)
        background = [tasks.create_task(work()) for work in works]
        inference_address = await inference.until_listening()
        async with _member(settings, runtime, agent, runners, inference_address):
            background.append(tasks.create_task(agent.run()))
            await runtime.stopping.wait()
        for task in reversed(background):
            task.cancel()
            await asyncio.wait([task])


@contextlib.asynccontextmanager
async def _member(
    settings: WorkerSettings,
    runtime: Runtime,
    agent: Agent,
    runners: Runners,
    inference_address: str,
) -> AsyncGenerator[None]:
    servicer = WorkerServicer(agent, runners)
    service = Servicer(
        servicer,
        worker_pb2_grpc.add_WorkerServiceServicer_to_server,
        worker_pb2.DESCRIPTOR.services_by_name["WorkerService"],
    )
    server = GrpcServer([service], runtime.verifier, settings.tls)
    address = f"{settings.reachable_host}:{await server.start(settings.host, settings.port)}"
    node = runtime.node(node_pb2.NODE_ROLE_WORKER, address)
    node.inference_address = inference_address
    node.capacity.cpus = settings.cpus
    node.capacity.memory_bytes = settings.memory_bytes
    node.capacity.gpus = settings.gpus
    servicer.node = node
    membership = await join(runtime.state, node, settings.lease_ttl_s, agent.let_go)
    _log.info("ready", address=address, role="NODE_ROLE_WORKER")
    try:
        yield
    finally:
        await membership.leave()
        await server.drain(_GRACE_S)


if __name__ == "__main__":
    run(WorkerSettings, main)
