"""A scheduler, a gateway, inference servers: versions and replicas change while requests come."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
from gateway_cluster import Cluster, Replica, eventually
from onnx import TensorProto, helper

from lepton_ai.proto.v1 import deployment_pb2, node_pb2, storage_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.clock import SystemClock
from lepton_runtime.election import Election
from lepton_runtime.state import Delete, Exists, Put, Unchanged, Write
from lepton_scheduler.leader import Leader

CLIENTS = 4
State = deployment_pb2.DeploymentState


class Worker:
    """A node's agent in miniature: loads what is placed there into a real inference server."""

    def __init__(self, stack: ExitStack, name: str, models: dict[int, Path]) -> None:
        self.name = name
        self._models = models
        self._server = Replica(stack, models[1])
        self._hurt = False

    def signal(self, number: signal.Signals) -> None:
        self._hurt = True
        self._server.child.send_signal(number)

    async def run(self, state: Any) -> None:
        node = node_pb2.Node(id=self.name, role=node_pb2.NODE_ROLE_WORKER, incarnation="1")
        node.labels["name"] = self.name
        node.capacity.cpus = 4
        await state.commit([], [Write(keys.node(self.name), node.SerializeToString())])
        known: dict[str, task_pb2.Task] = {}
        async for change in state.watch(f"{keys.TASKS}{self.name}/"):
            match change:
                case Put(record=record):
                    known[record.key] = task = task_pb2.Task.FromString(record.value)
                    await self._start(state, record.key, task)
                case Delete() if self._hurt:
                    pass  # it does what it is told no more
                case Delete(key=key):
                    replica = known.pop(key).replica
                    await asyncio.to_thread(
                        self._server.unload, replica.deployment, str(replica.version)
                    )
                case _:
                    pass

    async def _start(self, state: Any, key: str, task: task_pb2.Task) -> None:
        replica = task.replica
        path = self._models[replica.version]
        options = {field.name: value for field, value in replica.options.ListFields()}
        load = partial(self._server.load, replica.deployment, str(replica.version), path, **options)
        await asyncio.to_thread(load)
        status = task_pb2.TaskStatus(
            task_id=task.id,
            node_id=self.name,
            attempt=task.attempt,
            state=task_pb2.TASK_STATE_RUNNING,
            address=self._server.address,
            replica=replica,
        )
        write = Write(keys.task_status(self.name, task.id), status.SerializeToString())
        await state.commit([Exists(key)], [write])


class Serving(Cluster):
    """The gateway's cluster with a scheduler that leads, and workers."""

    def __enter__(self) -> Serving:
        super().__enter__()
        return self

    @contextmanager
    def governed(self, workers: list[Worker]) -> Generator[None]:
        """A scheduler leads inside the block, and these workers work."""
        self._await(self._govern(workers))
        try:
            yield
        finally:
            self._await(self._retire())

    async def _govern(self, workers: list[Worker]) -> None:
        state = self._state
        gateway = node_pb2.Node(id="g", role=node_pb2.NODE_ROLE_GATEWAY, incarnation="1")
        writes = [Write(keys.node("g"), gateway.SerializeToString())]
        for version in (1, 2, 3, 4):
            model = storage_pb2.Model(name="m", version=version, onnx_object=f"b3-{version}")
            writes.append(Write(keys.model("m", version), model.SerializeToString()))
        await state.commit([], writes)
        election = Election(state, keys.ELECTION, "s", 3.0)
        leader = Leader(state, self._bus, SystemClock(), election, "s")
        self._tasks = [asyncio.create_task(worker.run(state)) for worker in workers]
        self._tasks.append(asyncio.create_task(leader.run()))

    async def _retire(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            assert task.cancelled(), task.exception()

    def join(self, worker: Worker) -> None:
        """Another worker works until the end."""

        async def begin() -> None:
            self._tasks.append(asyncio.create_task(worker.run(self._state)))

        self._await(begin())

    def dropped(self, name: str) -> int:
        """Requests that were not mirrored, or not compared."""
        loads = (one for report in self.reports for one in report.deployments if one.name == name)
        return sum(version.dropped for load in loads for version in load.versions)

    def apply(self, spec: deployment_pb2.DeploymentSpec) -> None:
        """Ask for a deployment, as the scheduler's servicer does."""
        self._await(self._apply(spec))

    async def _apply(self, spec: deployment_pb2.DeploymentSpec) -> None:
        key = keys.deployment(spec.name)
        while True:
            record = await self._state.get(key)
            one = deployment_pb2.Deployment()
            if record is not None:
                one.ParseFromString(record.value)
            one.spec.CopyFrom(spec)
            one.generation += 1
            one.state = State.DEPLOYMENT_STATE_PROGRESSING
            conditions = [Unchanged(key, record.mod_revision)] if record else []
            if await self._state.commit(conditions, [Write(key, one.SerializeToString())]):
                return

    def deployment(self, name: str) -> deployment_pb2.Deployment:
        found: list[deployment_pb2.Deployment] = []

        async def read() -> None:
            record = await self._state.get(keys.deployment(name))
            assert record is not None
            found.append(deployment_pb2.Deployment.FromString(record.value))

        self._await(read())
        return found[0]

    def until(self, name: str, state: State, timeout_s: float = 30.0) -> deployment_pb2.Deployment:
        eventually(lambda: self.deployment(name).state == state, timeout_s)
        return self.deployment(name)


class Load:
    """Clients that ask one deployment again and again, and what they were answered."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._path = f"/v2/models/{name}/infer"
        self._stopping = threading.Event()
        self.answers: list[tuple[int, str, float]] = []  # status, version or error, time
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        headers = {"authorization": f"Bearer {self._cluster.keys.token()}"}
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
        body = json.dumps({"inputs": [tensor]})
        connection = self._cluster.connection()
        while not self._stopping.is_set():
            try:
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException):
                self.answers.append((0, "the connection broke", time.monotonic()))
                continue
            version = json.loads(text).get("model_version", text.decode())
            self.answers.append((response.status, version, time.monotonic()))
            time.sleep(0.001)
        connection.close()

    def more(self, count: int = 100) -> None:
        before = len(self.answers)
        eventually(lambda: len(self.answers) >= before + count)

    def failed(self) -> list[str]:
        """What was answered instead."""
        return [text for status, text, _ in self.answers if status != 200]

    def slowest(self, begin: int) -> float:
        """Seconds between two answers to one client at most, since so many were there."""
        times = [at for _, _, at in self.answers[begin:]]
        return max(after - before for before, after in itertools.pairwise(times))

    def versions(self, since: float = 0.0) -> set[str]:
        return {version for _, version, at in self.answers if at >= since}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Versions 1 and 2 double their input `x`, 3 wants it to be called `z`, and 4 squares it."""
    folder = tmp_path_factory.mktemp("versions")
    return {
        1: _model(folder, 1, "x", "Add"),
        2: _model(folder, 2, "x", "Add"),
        3: _model(folder, 3, "z", "Add"),
        4: _model(folder, 4, "x", "Mul"),
    }


def _model(folder: Path, version: int, name: str, operation: str) -> Path:
    rows = ["batch", "length"]
    graph = helper.make_graph(
        [helper.make_node(operation, [name, name], ["y"])],
        "m",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, rows)],
    )
    path = folder / f"{version}.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, models: dict[int, Path]) -> Iterator[Serving]:
    with ExitStack() as stack:
        workers = [Worker(stack, name, models) for name in ("w1", "w2")]
        with Serving(tmp_path_factory.mktemp("serving")) as cluster, cluster.governed(workers):
            yield cluster


def spec(name: str, version: int, replicas: int = 1) -> deployment_pb2.DeploymentSpec:
    return deployment_pb2.DeploymentSpec(name=name, model="m", version=version, replicas=replicas)


def deployed(serving: Serving, name: str) -> None:
    serving.apply(spec(name, 1))
    serving.until(name, State.DEPLOYMENT_STATE_READY)
    eventually(lambda: serving.infer(name, [1.0]).status == 200)


def test_a_new_version_takes_over_and_no_answer_is_the_old_ones(serving: Serving) -> None:
    deployed(serving, "taken-over")
    with Load(serving, "taken-over") as load:
        load.more()
        wanted = spec("taken-over", 2)
        wanted.rollout.stage_s = 0.5
        serving.apply(wanted)
        serving.until("taken-over", State.DEPLOYMENT_STATE_READY)
        announced = time.monotonic()
        load.more(500)
    assert load.failed() == []
    assert load.versions() == {"1", "2"}
    assert load.versions(since=announced) == {"2"}


def test_a_worse_version_is_rolled_back_and_the_old_one_serves_on(serving: Serving) -> None:
    deployed(serving, "rescued")
    with Load(serving, "rescued") as load:
        load.more()
        serving.apply(spec("rescued", 3))
        found = serving.until("rescued", State.DEPLOYMENT_STATE_ROLLED_BACK)
        announced = time.monotonic()
        load.more(300)
    assert "version 3 was rolled back at " in found.reason
    assert "requests failed" in found.reason
    assert [(share.version, share.percent) for share in found.traffic] == [(1, 100)]
    assert load.versions(since=announced) == {"1"}
    # What is mirrored fails first: by then hardly a client was sent there.
    assert len(load.failed()) < len(load.answers) / 20


def test_replicas_come_and_go_without_a_failed_request(serving: Serving) -> None:
    deployed(serving, "moving")
    with Load(serving, "moving") as load:
        load.more()
        for replicas in (2, 1, 2, 1):
            serving.apply(spec("moving", 1, replicas))
            eventually(lambda n=replicas: serving.deployment("moving").ready_replicas == n)
            load.more(200)
    assert load.failed() == []


def test_a_version_is_served_in_another_way_without_a_failed_request(serving: Serving) -> None:
    deployed(serving, "changed")
    with Load(serving, "changed") as load:
        load.more()
        wanted = spec("changed", 1, 2)
        wanted.options.max_batch_size = 7
        serving.apply(wanted)
        serving.until("changed", State.DEPLOYMENT_STATE_READY)
        load.more()
    assert load.failed() == []
    configs = [serving.request("GET", "/v2/models/changed/config").json for _ in range(20)]
    assert {config["max_batch_size"] for config in configs} == {7}


def test_replicas_follow_the_load_to_sleep_and_back(serving: Serving) -> None:
    wanted = spec("dozy", 1)
    wanted.scale.max_replicas, wanted.scale.target_outstanding, wanted.scale.calm_s = 2, 1, 2.0
    serving.apply(wanted)
    serving.until("dozy", State.DEPLOYMENT_STATE_ASLEEP)
    assert serving.infer("dozy", [1.0]).json["outputs"][0]["data"] == [2.0]
    with Load(serving, "dozy") as load:
        eventually(lambda: serving.deployment("dozy").ready_replicas == 2)
        load.more()
    serving.until("dozy", State.DEPLOYMENT_STATE_ASLEEP)
    with Load(serving, "dozy") as again:
        again.more()
    assert (load.failed(), again.failed()) == ([], [])
    serving.until("dozy", State.DEPLOYMENT_STATE_ASLEEP)


def test_a_version_that_answers_otherwise_is_rolled_back_before_anybody_is_answered(
    serving: Serving,
) -> None:
    deployed(serving, "wrong")
    with Load(serving, "wrong") as load:
        load.more()
        wanted = spec("wrong", 4)
        wanted.rollout.min_agreement = 0.9
        serving.apply(wanted)
        found = serving.until("wrong", State.DEPLOYMENT_STATE_ROLLED_BACK)
        load.more(300)
    assert "version 4 was rolled back: 0 of " in found.reason
    assert "90 % are asked for" in found.reason
    assert (load.failed(), load.versions()) == ([], {"1"})
    assert (found.agreement.version, found.agreement.agreed) == (4, 0)


def test_a_version_that_agrees_takes_over(serving: Serving) -> None:
    deployed(serving, "agreeing")
    with Load(serving, "agreeing") as load:
        load.more()
        wanted = spec("agreeing", 2)
        wanted.rollout.stage_s = 0.5
        wanted.rollout.min_agreement = 1.0
        serving.apply(wanted)
        found = serving.until("agreeing", State.DEPLOYMENT_STATE_READY)
        load.more()
    assert load.failed() == []
    assert found.serving_version == 2
    assert found.agreement.rows == found.agreement.agreed >= 100


def test_a_shadow_that_hangs_or_dies_costs_clients_nothing(serving: Serving, models: Any) -> None:
    deployed(serving, "shadowed")
    with ExitStack() as stack:
        other = Worker(stack, "w3", models)
        serving.join(other)
        with Load(serving, "shadowed") as load:
            wanted = spec("shadowed", 4)
            wanted.labels["name"] = "w3"
            wanted.rollout.shadow_percent = 50
            serving.apply(wanted)
            serving.until("shadowed", State.DEPLOYMENT_STATE_READY)
            eventually(lambda: serving.deployment("shadowed").agreement.rows > 0)
            assert serving.deployment("shadowed").agreement.agreed == 0
            for number in (signal.SIGSTOP, signal.SIGKILL):
                other.signal(number)
                began = len(load.answers)
                dropped = serving.dropped("shadowed")
                eventually(lambda n=dropped: serving.dropped("shadowed") > n)
                load.more(500)
                assert load.slowest(began) < 1.0
        serving.apply(spec("shadowed", 1))
        serving.until("shadowed", State.DEPLOYMENT_STATE_READY)
    assert (load.failed(), load.versions()) == ([], {"1"})
