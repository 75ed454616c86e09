"""Two schedulers that both believe they lead, on a network that delays and loses.

What the leader really does is used: its view, its decisions, its transactions. Only time, the
network and chance are made up.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine, Sequence
from typing import Any

from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.fencing import still_placed
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import (
    Change,
    Condition,
    Created,
    Delete,
    Operation,
    Put,
    Remove,
    Write,
)
from lepton_scheduler.actions import Action
from lepton_scheduler.cluster import ENDED, Cluster, job_of
from lepton_scheduler.core import decide
from lepton_scheduler.measures import Measures
from lepton_scheduler.observer import TYPES, Observer
from lepton_scheduler.transactions import transaction

CPUS = 2.0
STATES = task_pb2.TaskState


def now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


class Store:
    """The truth, and who is told of its changes."""

    def __init__(self) -> None:
        self.state = MemoryState()
        self.truth = Observer(self.state)
        self.listeners: list[Inbox] = []
        for prefix in TYPES:
            self.truth.apply(prefix, now(self.state.list(prefix)))

    def commit(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> int | None:
        present = {o.key for o in operations if now(self.state.get(o.key)) is not None}
        revision = now(self.state.commit(conditions, operations))
        if revision is None:
            return None
        changes: defaultdict[str, list[Change]] = defaultdict(list)
        for operation in operations:
            prefix = operation.key[: operation.key.index("/", len(keys.ROOT) + 1) + 1]
            if isinstance(operation, Write):
                changes[prefix].append(Put(now(self.state.get(operation.key))))
            elif operation.key in present:
                changes[prefix].append(Delete(operation.key, revision))
        for prefix in changes.keys() & TYPES.keys():
            for change in changes[prefix]:
                self.truth.apply(prefix, change)
            for listener in self.listeners:
                listener.waiting[prefix].append(changes[prefix])
        return revision


class Inbox:
    """Changes on their way to one watcher: in order below each prefix, late by any time.

    What was written in one transaction comes at once, as etcd has it.
    """

    def __init__(self, store: Store) -> None:
        self.view = Observer(store.state)
        self.waiting: dict[str, deque[list[Change]]] = {prefix: deque() for prefix in TYPES}
        for prefix in TYPES:
            self.view.apply(prefix, now(store.state.list(prefix)))

    def deliver(self, chance: random.Random, all_of_it: bool) -> None:
        for prefix, changes in self.waiting.items():
            count = len(changes) if all_of_it else chance.randint(0, len(changes))
            for _ in range(count):
                for change in changes.popleft():
                    self.view.apply(prefix, change)


class Scheduler:
    """One that has won, and goes on until it notices that another has."""

    def __init__(self, store: Store, token: int) -> None:
        self.store = store
        self.token = token
        self.look_afresh()

    def look_afresh(self) -> None:
        self.inbox = Inbox(self.store)
        self.written: dict[str, int] = {}

    def round(self, time: float, chance: random.Random, chaos: float) -> int:
        """Decide and write as the leader does; answers how many writes were accepted."""
        accepted = 0
        view = self.inbox.view
        if not view.has_seen(self.written):
            return 0
        self.written = {}
        for action in decide(time, view.cluster(Measures())):
            if chance.random() < chaos / 8:
                break  # it is stopped in the middle
            if chance.random() < chaos / 20:
                self.look_afresh()  # the request was lost
                return accepted
            revision, operations = self._write(action)
            accepted += revision is not None
            if chance.random() < chaos / 20:
                self.look_afresh()  # the answer was lost
                return accepted
            if revision is None:
                break
            self.written |= {o.key: revision for o in operations if isinstance(o, Write)}
        return accepted

    def _write(self, action: Action) -> tuple[int | None, Sequence[Operation]]:
        revisions = self.inbox.view.revisions
        conditions, operations = transaction(action, revisions, self.token)
        leads = Created(keys.ELECTION, self.token)
        return self.store.commit([leads, *conditions], operations), operations


class Contest:
    """Workers, jobs, and schedulers that come, go, and do not know that they went."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = Store()
        self.time = 1_000.0
        self.incarnations = Counter[str]()
        self.names = [f"w{i}" for i in range(self.random.randint(2, 4))]
        self.schedulers: list[Scheduler] = []
        self.remembered: list[task_pb2.Task] = []
        self.ended: dict[str, bytes] = {}
        self.seen = Counter[str]()
        for name in self.names:
            self.start(name)
        for number in range(self.random.randint(1, 5)):
            self.submit(number)
        self.elect()

    @property
    def cluster(self) -> Cluster:
        return self.store.truth.cluster(Measures())

    def put(self, key: str, value: bytes) -> None:
        assert self.store.commit([], [Write(key, value)])

    def start(self, name: str) -> None:
        self.incarnations[name] += 1
        node = node_pb2.Node(
            id=name,
            role=node_pb2.NODE_ROLE_WORKER,
            incarnation=str(self.incarnations[name]),
            capacity=node_pb2.Resources(cpus=CPUS),
        )
        self.put(keys.node(name), node.SerializeToString())

    def submit(self, number: int) -> None:
        least = self.random.randint(1, 3)
        job = job_pb2.Job(id=f"j-{number}", state=job_pb2.JOB_STATE_QUEUED, attempt=1)
        job.tenant = self.random.choice(["a", "b"])
        job.spec.workers.min, job.spec.workers.max = least, least + self.random.randint(0, 2)
        job.spec.resources.cpus = 1.0
        job.spec.priority = self.random.randint(0, 2)
        job.spec.stall_limit_s = 20
        job.spec.train.SetInParent()
        job.created_at.FromSeconds(number + 1)
        self.put(keys.job(job.id), job.SerializeToString())

    def elect(self) -> None:
        """Another scheduler leads; the one before is not told."""
        self.store.commit([], [Remove(keys.ELECTION)])
        token = self.store.commit([], [Write(keys.ELECTION, b"")])
        assert token is not None
        self.schedulers = [*self.schedulers[-1:], Scheduler(self.store, token)]
        self.store.listeners = [scheduler.inbox for scheduler in self.schedulers]
        self.seen["elections"] += 1

    def step(self, chaos: float) -> None:
        self.time += 1.0
        self.disturb(chaos)
        if self.random.random() < chaos / 5:
            self.elect()
        leader = self.schedulers[-1]
        for scheduler in self.random.sample(self.schedulers, len(self.schedulers)):
            scheduler.inbox.deliver(self.random, all_of_it=not chaos)
            accepted = scheduler.round(self.time, self.random, chaos)
            assert scheduler is leader or not accepted, "a deposed leader was heard"
            self.seen["deposed"] += scheduler is not leader
            self.store.listeners = [each.inbox for each in self.schedulers]
            if accepted:
                self.check()
        self.work(chaos)
        self.haunt()

    def disturb(self, chaos: float) -> None:
        cluster = self.cluster
        for name in self.names:
            if name not in cluster.workers:
                if self.random.random() > chaos:
                    self.start(name)
            elif self.random.random() < chaos / 4:
                self.store.commit([], [Remove(keys.node(name))])
                self.seen["losses"] += 1
            elif self.random.random() < chaos / 4:
                self.start(name)
            elif self.random.random() < chaos / 10:
                mark = keys.draining(name)
                there = name in cluster.draining
                self.store.commit([], [Remove(mark) if there else Write(mark, b"")])
        if self.random.random() < chaos / 40:
            self.cancel()

    def calm(self) -> None:
        for name in self.names:
            self.store.commit([], [Remove(keys.draining(name))])

    def cancel(self) -> None:
        """A person changes a job behind the leader's back."""
        job = self.random.choice(list(self.cluster.jobs.values()))
        if job.state not in ENDED:
            job.state = job_pb2.JOB_STATE_CANCELLED
            self.put(keys.job(job.id), job.SerializeToString())

    def work(self, chaos: float) -> None:
        """Agents do what is placed on them, and say so."""
        cluster = self.cluster
        for task in cluster.alive():
            state = cluster.status_of(task).state
            fresh = self.next_state(task, state, chaos)
            known = task_pb2.Task()
            known.CopyFrom(task)
            key = keys.task(task.node_id, task.id, task.attempt)
            known.placed_revision = now(self.store.state.get(key)).create_revision
            if self.random.random() < chaos / 10:
                self.remembered.append(known)  # its process is stopped, and goes on later
            if fresh != state:
                assert self.say(known, fresh) is not None

    def haunt(self) -> None:
        """Ranks of the past wake up and claim success."""
        current = {
            (record.key, record.create_revision)
            for record in now(self.store.state.list(keys.TASKS)).records
        }
        for task in self.remembered:
            key = keys.task(task.node_id, task.id, task.attempt)
            if (key, task.placed_revision) not in current:
                assert self.say(task, STATES.TASK_STATE_SUCCEEDED) is None, "the past was heard"
                self.seen["stale writes refused"] += 1
        self.remembered = self.remembered[-5:]

    def say(self, task: task_pb2.Task, state: task_pb2.TaskState) -> int | None:
        status = task_pb2.TaskStatus(
            task_id=task.id, node_id=task.node_id, attempt=task.attempt, state=state
        )
        status.updated_at.FromNanoseconds(int(self.time * 1e9))
        write = Write(keys.task_status(task.node_id, task.id), status.SerializeToString())
        return self.store.commit([still_placed(task)], [write])

    def next_state(self, task: task_pb2.Task, state: int, chaos: float) -> task_pb2.TaskState:
        starting, running = STATES.TASK_STATE_STARTING, STATES.TASK_STATE_RUNNING
        if state in (starting, running) and self.random.random() < chaos / 40:
            return STATES.TASK_STATE_FAILED
        if state == running and task.HasField("trainer"):
            if self.random.random() < chaos / 40:
                return STATES.TASK_STATE_STALLED
            return STATES.TASK_STATE_TRAINED if self.random.random() < 0.2 else running
        if state == STATES.TASK_STATE_TRAINED and task.trainer.publish:
            return STATES.TASK_STATE_SUCCEEDED
        after = {STATES.TASK_STATE_UNSPECIFIED: starting, starting: running}
        return after.get(STATES.Name(state) and state, state)  # pyright: ignore

    def check(self) -> None:
        cluster = self.cluster
        used, homes = defaultdict[str, float](float), Counter[str]()
        for task in cluster.alive():
            used[task.node_id] += task.resources.cpus
        for task in cluster.tasks.values():
            homes[task.id] += 1
            assert job_of(task) in cluster.jobs
        assert all(cpus <= CPUS for cpus in used.values()), f"capacity exceeded: {dict(used)}"
        assert all(count == 1 for count in homes.values()), f"placed twice: {homes}"
        publishers = Counter(t.trainer.job_id for t in cluster.alive() if t.trainer.publish)
        assert all(count == 1 for count in publishers.values()), f"two publish: {publishers}"
        for job in cluster.jobs.values():
            if job.state in ENDED:
                said = job.SerializeToString(deterministic=True)
                assert self.ended.setdefault(job.id, said) == said, "an ended job changed"
