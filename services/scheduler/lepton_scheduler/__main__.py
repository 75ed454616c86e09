"""Puts a scheduler together and runs it: `python -m lepton_scheduler`."""

from __future__ import annotations

import asyncio

from lepton_ai.proto.v1 import node_pb2, scheduler_pb2
from lepton_ai.proto.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server
from lepton_runtime import keys
from lepton_runtime.election import Election
from lepton_runtime.server import Servicer
from lepton_runtime.service import Runtime, run, serving
from lepton_scheduler.leader import Leader
from lepton_scheduler.servicer import SchedulerServicer
from lepton_scheduler.settings import SchedulerSettings


async def main(settings: SchedulerSettings, runtime: Runtime) -> None:
    """Answer calls, and campaign for leadership, until told to stop."""
    election = Election(runtime.state, keys.ELECTION, settings.node_id, settings.election_ttl_s)
    leader = Leader(runtime.state, runtime.bus, runtime.clock, election, settings.node_id)
    servicer = Servicer(
        SchedulerServicer(runtime),
        add_SchedulerServiceServicer_to_server,
        scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"],
    )
    async with asyncio.TaskGroup() as tasks:
        leading = tasks.create_task(leader.run())
        async with serving(runtime, [servicer], node_pb2.NODE_ROLE_SCHEDULER):
            await runtime.stopping.wait()
        leading.cancel()  # which resigns, so that a standby leads at once


if __name__ == "__main__":
    run(SchedulerSettings, main)
