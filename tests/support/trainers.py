"""Trainers without an agent, and agents with their trainers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from lepton_runtime.cancellation import end
from lepton_worker.agent import Agent
from lepton_worker.runners import Runners
from lepton_worker.trainers import Trainers


@asynccontextmanager
async def kept_trainers() -> AsyncGenerator[Trainers]:
    trainers = Trainers()
    keeping = asyncio.create_task(trainers.keep_spare())
    try:
        yield trainers
    finally:
        await end(keeping)


async def run_node(agent: Agent, runners: Runners) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(agent.run())
        tasks.create_task(runners.tell())
        tasks.create_task(runners.keep_warm())
