"""What an agent starts, keeps and ends as its tasks come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from lepton_ai.errors import UnavailableError
from lepton_ai.proto.v1 import task_pb2
from lepton_runtime import keys
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Remove, Write
from lepton_worker.agent import Agent, StatusWriter, is_ours
from lepton_worker.runners import Runners


class FakeRunners:
    """Runs nothing, and remembers what it was told; a run lasts until it is cancelled."""

    def __init__(self) -> None:
        self.running: set[tuple[str, int]] = set()
        self.begun: list[tuple[str, int]] = []
        self.published: list[str] = []
        self.changed: list[int] = []

    async def run(self, task: task_pb2.Task) -> None:
        self.begun.append((task.id, task.attempt))
        self.running.add((task.id, task.attempt))
        try:
            await asyncio.Event().wait()
        finally:
            self.running.remove((task.id, task.attempt))

    def publish(self, task: task_pb2.Task) -> None:
        self.published.append(task.id)

    def change(self, task: task_pb2.Task) -> None:
        self.changed.append(task.replica.options.max_batch_size)

    def pid(self, task_id: str) -> int:
        return 7


class Node:
    """One agent over a state in memory."""

    def __init__(self) -> None:
        self.state, self.runners = MemoryState(), FakeRunners()
        self.statuses = StatusWriter(self.state, "w1")
        runners: Any = self.runners
        self.agent = Agent(self.state, "w1", "now", cast("Runners", runners), self.statuses)

    async def place(self, **fields: Any) -> task_pb2.Task:
        known = {"id": "t", "node_id": "w1", "node_incarnation": "now", "attempt": 1}
        task = task_pb2.Task(**{**known, **fields})
        key = keys.task("w1", task.id, task.attempt)
        await self.state.commit([], [Write(key, task.SerializeToString())])
        await settled()
        record = await self.state.get(key)
        assert record is not None
        task.placed_revision = record.create_revision
        return task

    async def remove(self, task_id: str, attempt: int = 1) -> None:
        await self.state.commit([], [Remove(keys.task("w1", task_id, attempt))])
        await settled()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def running() -> AsyncGenerator[Node]:
    node = Node()
    agent = asyncio.create_task(node.agent.run())
    await settled()
    try:
        yield node
    finally:
        agent.cancel()
        await asyncio.wait([agent])
        assert not node.runners.running


@pytest.mark.parametrize(
    ("incarnation", "token", "ours"),
    [("now", 5, True), ("now", 6, True), ("now", 4, False), ("before", 5, False)],
)
def test_a_task_is_ours_when_it_is_for_this_process_from_the_newest_leader(
    incarnation: str, token: int, ours: bool
) -> None:
    task = task_pb2.Task(node_incarnation=incarnation, fencing_token=token)
    assert is_ours(task, "now", written_at=7, newest_token=5) is ours


def test_what_a_leader_placed_before_another_was_elected_holds() -> None:
    task = task_pb2.Task(node_incarnation="now", fencing_token=2)
    assert is_ours(task, "now", written_at=4, newest_token=5)
    assert not is_ours(task, "now", written_at=5, newest_token=5)


def test_a_task_runs_from_its_record_to_its_removal() -> None:
    async def scenario() -> None:
        async with running() as node:
            await node.place()
            assert node.runners.running == {("t", 1)}
            (told,) = node.agent.running()
            assert (told.task.id, told.pid) == ("t", 7)
            await node.remove("t")
            assert not node.runners.running
            assert not node.agent.running()

    asyncio.run(scenario())


def test_a_deposed_leader_and_a_former_life_place_nothing() -> None:
    async def scenario() -> None:
        async with running() as node:
            await node.place(id="new", fencing_token=2)
            await node.place(id="old-leader", fencing_token=1)
            await node.place(id="old-life", node_incarnation="before", fencing_token=2)
            assert node.runners.begun == [("new", 1)]

    asyncio.run(scenario())


def test_another_attempt_begins_only_when_the_one_before_has_ended() -> None:
    async def scenario() -> None:
        async with running() as node:
            await node.place()
            await node.place()
            assert node.runners.begun == [("t", 1)]
            await node.place(attempt=2)
            assert node.runners.running == {("t", 2)}

    asyncio.run(scenario())


def test_a_node_that_was_cut_off_ends_what_was_placed_elsewhere_and_keeps_the_rest() -> None:
    async def scenario() -> None:
        async with running() as node:
            await node.place()
            await node.place(id="other")
            node.state.mute_watches()
            await node.remove("t")
            assert node.runners.running == {("t", 1), ("other", 1)}
            await node.agent.let_go()
            assert node.runners.running == {("other", 1)}

    asyncio.run(scenario())


def test_a_rank_is_told_once_to_publish() -> None:
    async def scenario() -> None:
        async with running() as node:
            task = await node.place(trainer=task_pb2.TrainerTask(job_id="j"))
            task.trainer.publish = True
            for _ in range(2):
                await node.place(trainer=task.trainer)
            assert node.runners.published == ["t"]

    asyncio.run(scenario())


def test_a_status_is_said_only_while_its_task_exists() -> None:
    async def scenario() -> None:
        async with running() as node:
            task = await node.place()
            await node.statuses.write(task, task_pb2.TaskStatus(state=task_pb2.TASK_STATE_RUNNING))
            record = await node.state.get(keys.task_status("w1", "t"))
            assert record is not None
            said = task_pb2.TaskStatus.FromString(record.value)
            assert (said.task_id, said.attempt, said.node_id) == ("t", 1, "w1")
            gone = task_pb2.Task(id="gone", node_id="w1", attempt=1)
            await node.statuses.write(gone, task_pb2.TaskStatus(state=task_pb2.TASK_STATE_RUNNING))
            assert await node.state.get(keys.task_status("w1", "gone")) is None

    asyncio.run(scenario())


def test_an_attempt_that_was_placed_anew_under_its_own_name_says_nothing_more() -> None:
    async def scenario() -> None:
        async with running() as node:
            stale = await node.place()
            await node.remove("t")
            await node.place()
            await node.statuses.write(stale, task_pb2.TaskStatus(state=task_pb2.TASK_STATE_FAILED))
            assert await node.state.get(keys.task_status("w1", "t")) is None

    asyncio.run(scenario())


def test_a_replica_that_runs_is_told_how_to_serve() -> None:
    async def scenario() -> None:
        async with running() as node:
            task = task_pb2.Task(id="t", node_id="w1", node_incarnation="now", attempt=1)
            for size in (2, 4, 4):
                task.replica.options.max_batch_size = size
                key = keys.task("w1", "t", 1)
                await node.state.commit([], [Write(key, task.SerializeToString())])
                await settled()
            assert (node.runners.begun, node.runners.changed) == ([("t", 1)], [4])

    asyncio.run(scenario())


def test_statuses_wait_for_a_state_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lepton_worker.agent._RETRY_S", 0)

    async def scenario() -> None:
        async with running() as node:
            task = await node.place()
            commit, left = node.state.commit, iter([True, True])

            async def away(*arguments: Any) -> int | None:
                if next(left, False):
                    raise UnavailableError("etcd cannot be reached")
                return await commit(*arguments)

            monkeypatch.setattr(node.state, "commit", away)
            for state in (task_pb2.TASK_STATE_RUNNING, task_pb2.TASK_STATE_TRAINED):
                await node.statuses.write(task, task_pb2.TaskStatus(state=state))
            record = await node.state.get(keys.task_status("w1", "t"))
            assert record is not None
            assert task_pb2.TaskStatus.FromString(record.value).state == state

    asyncio.run(scenario())
