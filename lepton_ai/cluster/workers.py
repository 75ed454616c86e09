"""Looking after workers: what an administrator does."""

from __future__ import annotations

from lepton_ai.proto.v1 import scheduler_pb2, scheduler_pb2_grpc
from lepton_ai.rpc import translated_errors

__all__ = ["AsyncWorkers"]

_CALL_S = 30.0


class AsyncWorkers:
    """The workers of a cluster. Made by `AsyncCluster.workers`."""

    def __init__(self, stub: scheduler_pb2_grpc.SchedulerServiceStub) -> None:
        self._stub = stub

    async def cordon(self, node_id: str) -> None:
        """Give a worker no new work; what runs there goes on.

        Raises:
            NotFoundError: No such worker is alive.
        """
        request = scheduler_pb2.CordonWorkerRequest(node_id=node_id)
        async with translated_errors():
            await self._stub.CordonWorker(request, timeout=_CALL_S)

    async def drain(self, node_id: str) -> None:
        """Move what runs on a worker to others; its record tells how many tasks are left.

        Raises:
            NotFoundError: No such worker is alive.
        """
        request = scheduler_pb2.DrainWorkerRequest(node_id=node_id)
        async with translated_errors():
            await self._stub.DrainWorker(request, timeout=_CALL_S)

    async def uncordon(self, node_id: str) -> None:
        """Give a worker new work again, whether it was cordoned or drained."""
        request = scheduler_pb2.UncordonWorkerRequest(node_id=node_id)
        async with translated_errors():
            await self._stub.UncordonWorker(request, timeout=_CALL_S)
