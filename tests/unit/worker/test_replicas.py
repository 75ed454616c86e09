"""A replica serves, is told to serve otherwise, and says what came of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from lepton_ai.errors import InvalidArgumentError, UnavailableError
from lepton_ai.proto.v1 import task_pb2
from lepton_worker.replicas import Replicas

TIMEOUT_S = 10.0


class Node:
    """Storage, an inference server and the one who hears, in one."""

    def __init__(self) -> None:
        self.serves: dict[tuple[str, str], Any] = {}
        self.said: asyncio.Queue[task_pb2.TaskStatus] = asyncio.Queue()
        self.away = False

    async def fetch(self, object_id: str) -> Path:
        return Path("/cache") / object_id

    async def load(self, name: str, version: str, steps: Any, options: Any) -> None:
        if options.get("max_batch_size") == 13:
            raise InvalidArgumentError("thirteen is no size")
        if options and self.away:
            self.away = False
            raise UnavailableError("the server died")
        self.serves[name, version] = ([step["path"] for step in steps], options)

    async def unload(self, name: str, version: str) -> None:
        del self.serves[name, version]

    async def until_listening(self) -> str:
        return "here:1"

    async def write(self, task: task_pb2.Task, status: task_pb2.TaskStatus) -> None:
        assert (task.id, status.state, status.address) == (
            "t",
            task_pb2.TASK_STATE_RUNNING,
            "here:1",
        )
        await self.said.put(status)


def test_a_replica_says_what_it_serves_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lepton_worker.replicas._RETRY_S", 0)

    async def scenario() -> None:
        node = cast("Any", Node())
        replicas = Replicas(node, node, node)
        task = task_pb2.Task(id="t")
        task.replica.deployment, task.replica.version, task.replica.object_id = "m", 3, "b3"
        running = asyncio.create_task(replicas.run(task))

        async def told(size: int) -> task_pb2.TaskStatus:
            fresh = task_pb2.Task()
            fresh.CopyFrom(task)
            fresh.replica.options.max_batch_size = size
            replicas.change(fresh)
            return await node.said.get()

        async with asyncio.timeout(TIMEOUT_S):
            assert (await node.said.get()).replica == task.replica
            assert node.serves == {("m", "3"): (["/cache/b3"], {})}
            assert (await told(4)).replica.options.max_batch_size == 4
            refused = await told(13)
            assert refused.reason == "thirteen is no size"
            assert refused.replica.options.max_batch_size == 4
            assert node.serves["m", "3"][1] == {"max_batch_size": 4}
            assert (await told(5)).reason == ""
            node.away = True
            assert (await told(6)).reason == "the server died"
            assert (await node.said.get()).replica.options.max_batch_size == 6
        running.cancel()
        await asyncio.wait([running])
        assert node.serves == {}

    asyncio.run(scenario())
