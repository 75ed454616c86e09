"""Trainers without an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from lepton_runtime.cancellation import end
from lepton_worker.trainers import Trainers


@asynccontextmanager
async def kept_trainers() -> AsyncGenerator[Trainers]:
    trainers = Trainers()
    keeping = asyncio.create_task(trainers.keep_spare())
    try:
        yield trainers
    finally:
        await end(keeping)
