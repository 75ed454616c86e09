"""Decisions about programs: their ranks live and die together, one attempt after the other."""

from __future__ import annotations

import pytest

from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_scheduler.actions import Action, PlaceGang, RemoveTask, UpdateJob
from lepton_scheduler.cluster import Cluster
from lepton_scheduler.core import decide

NOW = 1_000.0
RUNNING, SUCCEEDED = task_pb2.TASK_STATE_RUNNING, task_pb2.TASK_STATE_SUCCEEDED
FAILED = task_pb2.TASK_STATE_FAILED


class World:
    """A cluster that does what is decided."""

    def __init__(self, workers: int = 2, cpus: float = 2, ranks: tuple[int, int] = (2, 2)) -> None:
        self.cluster = Cluster()
        self.now = NOW
        for number in range(workers):
            self.start(f"w{number}", cpus)
        job = job_pb2.Job(id="j-1", state=job_pb2.JOB_STATE_QUEUED, attempt=1)
        job.spec.workers.min, job.spec.workers.max = ranks
        job.spec.resources.cpus = 1
        job.spec.script.entry = "train.py"
        self.cluster.jobs["j-1"] = job

    @property
    def job(self) -> job_pb2.Job:
        return self.cluster.jobs["j-1"]

    def start(self, name: str, cpus: float = 2, incarnation: str = "1") -> None:
        capacity = node_pb2.Resources(cpus=cpus)
        node = node_pb2.Node(id=name, incarnation=incarnation, capacity=capacity)
        self.cluster.workers[name] = node

    def settle(self) -> list[Action]:
        """Decide until nothing is left to do; all that was decided."""
        decided: list[Action] = []
        while actions := decide(self.now, self.cluster):
            for action in actions:
                self.apply(action)
            decided += actions
        return decided

    def apply(self, action: Action) -> None:
        match action:
            case PlaceGang(job=job, tasks=tasks):
                assert not self.cluster.tasks
                self.cluster.jobs[job.id] = job
                self.cluster.tasks = {(task.node_id, task.id): task for task in tasks}
            case RemoveTask(task=task):
                del self.cluster.tasks[task.node_id, task.id]
                self.cluster.statuses.pop((task.node_id, task.id), None)
            case UpdateJob(job=job):
                self.cluster.jobs[job.id] = job
            case _:
                raise AssertionError(action)

    def ranks(self) -> list[task_pb2.Task]:
        return sorted(self.cluster.tasks.values(), key=lambda task: task.script.rank)

    def say(self, rank: int, state: task_pb2.TaskState, at: float = NOW, **more: object) -> None:
        task = self.ranks()[rank]
        status = task_pb2.TaskStatus(state=state, attempt=task.attempt, **more)  # pyright: ignore
        status.updated_at.FromNanoseconds(int(at * 1e9))
        self.cluster.statuses[task.node_id, task.id] = status

    def run(self) -> None:
        self.settle()
        for rank in range(len(self.ranks())):
            self.say(rank, RUNNING)
        self.settle()
        assert self.job.state == job_pb2.JOB_STATE_RUNNING


def test_ranks_know_their_place_on_their_nodes() -> None:
    world = World(ranks=(3, 3))
    world.settle()
    told = [
        (t.node_id, t.script.group_rank, t.script.local_rank, t.script.local_world_size)
        for t in world.ranks()
    ]
    assert told == [("w0", 0, 0, 2), ("w0", 0, 1, 2), ("w1", 1, 0, 1)]
    assert {task.script.world_size for task in world.ranks()} == {3}


def test_a_lost_node_starts_all_ranks_again_with_what_there_is() -> None:
    world = World(ranks=(1, 4), cpus=1)
    world.run()
    assert [task.script.world_size for task in world.ranks()] == [2, 2]
    del world.cluster.workers["w1"]
    world.settle()
    (rank,) = world.ranks()
    assert (rank.attempt, rank.script.restarts, rank.script.world_size) == (2, 1, 1)
    assert (world.job.attempt, world.job.failures) == (2, 0)


def test_what_a_former_attempt_says_is_not_heard() -> None:
    world = World()
    world.run()
    former = world.ranks()
    world.start("w1", incarnation="2")
    (update, *_) = decide(NOW, world.cluster)
    assert isinstance(update, UpdateJob)
    world.apply(update)  # and then the leader dies
    for task in former:
        status = task_pb2.TaskStatus(state=SUCCEEDED, attempt=task.attempt)
        world.cluster.statuses[task.node_id, task.id] = status
    world.settle()
    assert [task.attempt for task in world.ranks()] == [2, 2]
    assert world.job.state != job_pb2.JOB_STATE_SUCCEEDED


def test_an_error_of_the_program_ends_the_job_with_what_failed_first() -> None:
    world = World()
    world.run()
    world.say(0, FAILED, at=NOW + 0.2, user_error=True, reason="connection closed")
    world.settle()
    assert world.job.state == job_pb2.JOB_STATE_RUNNING  # perhaps the other's node is gone
    world.say(1, FAILED, at=NOW + 0.1, user_error=True, reason="ValueError")
    world.settle()
    assert (world.job.state, world.job.reason) == (job_pb2.JOB_STATE_FAILED, "ValueError")
    assert not world.ranks()


def test_a_rank_that_waits_for_one_that_failed_is_not_waited_for() -> None:
    world = World()
    world.run()
    world.say(0, FAILED, user_error=True, reason="ValueError")
    world.now += 10
    world.settle()
    assert world.job.reason == "ValueError"


def test_an_error_that_comes_of_a_lost_node_is_not_the_programs() -> None:
    world = World()
    world.run()
    world.say(0, FAILED, user_error=True, reason="connection closed")
    world.settle()
    del world.cluster.workers[world.ranks()[1].node_id]
    world.settle()
    assert world.job.attempt == 2


@pytest.mark.parametrize("failures", [1, 4])
def test_ranks_that_are_killed_are_tried_again_a_few_times_each_time_later(failures: int) -> None:
    world = World()
    for number in range(failures):
        world.run()
        world.say(1, FAILED, at=world.now, reason="killed")
        world.settle()
        if number < 3:
            assert world.job.attempt == number + 1
            world.now += 2**number
            world.settle()
    ended = world.job.state == job_pb2.JOB_STATE_FAILED
    assert (ended, world.job.failures) == ((False, 1) if failures == 1 else (True, 3))


def test_the_lower_rank_counts_where_two_left_the_same_file() -> None:
    world = World()
    world.run()
    for rank, names in enumerate((["a", "b"], ["b", "c"])):
        files = [job_pb2.JobFile(path=name, object_id=f"{name}{rank}") for name in names]
        result = job_pb2.JobResult(files=files, metrics={"loss": rank})
        world.say(rank, SUCCEEDED, result=result)
    world.settle()
    assert world.job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert [file.object_id for file in world.job.result.files] == ["a0", "b0", "c1"]
    assert world.job.result.metrics["loss"] == 0


def test_a_more_urgent_job_takes_all_or_nothing_and_it_starts_again_afterwards() -> None:
    world = World(workers=1)
    world.run()
    urgent = job_pb2.Job(id="j-2", state=job_pb2.JOB_STATE_QUEUED, attempt=1)
    urgent.spec.workers.min = urgent.spec.workers.max = 1
    urgent.spec.resources.cpus, urgent.spec.priority = 1, 5
    urgent.spec.script.entry = "urgent.py"
    world.cluster.jobs["j-2"] = urgent
    for action in decide(NOW, world.cluster):
        world.apply(action)
    assert world.job.state == job_pb2.JOB_STATE_PREEMPTED
    assert not world.ranks()
    del world.cluster.jobs["j-2"]
    world.run()
    assert [task.attempt for task in world.ranks()] == [2, 2] == [world.job.attempt] * 2


def test_ranks_leave_a_node_that_is_drained_only_for_room_elsewhere() -> None:
    world = World(workers=2, cpus=1)
    world.run()
    world.cluster.draining = frozenset({"w1"})
    assert not world.settle()
    world.start("w2")
    world.settle()
    assert {task.node_id for task in world.ranks()} == {"w0", "w2"}
    assert world.job.attempt == 2
