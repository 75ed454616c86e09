"""What happens to the cluster while the leader writes its decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lepton_ai.proto.v1 import job_pb2, node_pb2
from lepton_runtime import keys
from lepton_runtime.cancellation import end
from lepton_runtime.clock import ManualClock
from lepton_runtime.election import Election
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_runtime.state import Condition, Operation, Write
from lepton_scheduler.leader import Leader

PLACED, CANCELLED = job_pb2.JOB_STATE_PLACED, job_pb2.JOB_STATE_CANCELLED


class Meddled(MemoryState):
    """A person cancels the second job just before the first one's placement is written."""

    async def commit(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> int | None:
        placing = any(isinstance(o, Write) and o.key == keys.job("j-1") for o in operations)
        if placing and conditions:
            await self.write_job(2, CANCELLED)
            for _ in range(20):  # the leader's view sees it
                await asyncio.sleep(0)
        return await super().commit(conditions, operations)

    async def write_job(self, number: int, state: job_pb2.JobState) -> None:
        job = job_pb2.Job(id=f"j-{number}", state=state, attempt=1)
        job.spec.workers.min = job.spec.workers.max = 1
        job.spec.resources.cpus = 1
        job.spec.train.SetInParent()
        job.created_at.FromSeconds(number)
        write = Write(keys.job(job.id), job.SerializeToString())
        await super().commit([], [write])

    async def job(self, number: int) -> job_pb2.Job:
        record = await self.get(keys.job(f"j-{number}"))
        assert record is not None
        return job_pb2.Job.FromString(record.value)


def test_what_is_cancelled_while_others_are_placed_stays_cancelled() -> None:
    async def scenario() -> None:
        state, clock = Meddled(), ManualClock()
        node = node_pb2.Node(id="w", role=node_pb2.NODE_ROLE_WORKER, incarnation="1")
        node.capacity.cpus = 2
        await state.commit([], [Write(keys.node("w"), node.SerializeToString())])
        for number in (1, 2):
            await state.write_job(number, job_pb2.JOB_STATE_QUEUED)
        election = Election(state, keys.ELECTION, "s", 4)
        leading = asyncio.create_task(Leader(state, MemoryBus(), clock, election, "s").run())
        try:
            async with asyncio.timeout(10):
                async for _ in state.watch(keys.JOBS):
                    if (await state.job(1)).state == PLACED:
                        break
                for _ in range(5):  # of rounds
                    await clock.advance(1.0)
        finally:
            await end(leading)
        assert (await state.job(2)).state == CANCELLED

    asyncio.run(scenario())
