"""`WorkerService` on the wire: what runs on this node."""

from __future__ import annotations

from typing import Any

from lepton_ai.proto.v1 import node_pb2, worker_pb2, worker_pb2_grpc
from lepton_worker.agent import Agent
from lepton_worker.runners import Runners

__all__ = ["WorkerServicer"]


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Tells what the agent knows.

    Attributes:
        node: This node, once it is a member.
    """

    def __init__(self, agent: Agent, runners: Runners) -> None:
        self._agent = agent
        self._runners = runners
        self.node = node_pb2.Node()

    async def DescribeWorker(
        self, request: worker_pb2.DescribeWorkerRequest, context: Any
    ) -> worker_pb2.DescribeWorkerResponse:
        """What runs here, process by process."""
        return worker_pb2.DescribeWorkerResponse(
            node=self.node,
            tasks=self._agent.running(),
            warm_trainers=self._runners.spare_trainers,
        )
