"""A cluster in miniature, driven by seeds, that checks what must hold after every action."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from lepton_ai.proto.v1 import deployment_pb2, job_pb2, node_pb2, serving_pb2, storage_pb2, task_pb2
from lepton_scheduler.actions import (
    Action,
    PlaceGang,
    PlaceTask,
    RemoveTask,
    UpdateDeployment,
    UpdateJob,
    UpdateTask,
)
from lepton_scheduler.cluster import ENDED, Cluster, job_of
from lepton_scheduler.core import decide
from lepton_scheduler.elastic import rank_of

MODELS = {
    ("digits", number): storage_pb2.Model(name="digits", version=number, onnx_object=f"b3-{number}")
    for number in (1, 2)
}
CPUS = 2.0


class Simulation:
    """Workers that run what is placed on them, and a world that gets in their way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_000.0
        self.cluster = Cluster(models=dict(MODELS))
        self.names = [f"w{i}" for i in range(self.random.randint(2, 4))]
        self.incarnations = Counter[str]()
        self.ended: dict[str, bytes] = {}
        for name in self.names:
            self.start(name)
        for number in range(self.random.randint(1, 5)):
            self.submit(number)
        spec = deployment_pb2.DeploymentSpec(
            name="digits", model="digits", version=1, replicas=self.random.randint(1, 2)
        )
        if self.random.random() < 0.5:
            spec.alias = "champion"
            self.cluster.aliases["digits", "champion"] = 1
        self.cluster.deployments["digits"] = deployment_pb2.Deployment(spec=spec, generation=1)
        for number in range(self.random.randint(0, 2)):
            name = f"g{number}"
            self.cluster.gateways[name] = node_pb2.Node(id=name, incarnation="1")
        # What gateways do with requests: the record as each has it.
        self.routes: dict[str, deployment_pb2.Deployment] = {}
        self.bad = self.random.random() < 0.3
        self.differs = self.random.random() < 0.2

    def roll(self) -> None:
        """Ask for another version, by name or by the alias that the deployment follows."""
        deployment = self.cluster.deployments["digits"]
        spec = deployment.spec
        if spec.alias:
            self.cluster.aliases[spec.model, spec.alias] = 3 - spec.version
        else:
            spec.version = 3 - spec.version
            deployment.generation += 1
        spec.rollout.stage_s = self.random.choice((0.0, 3.0, 10.0))
        # Answers are compared by gateways.
        spec.rollout.min_agreement = self.random.choice((0.0, 0.9)) * bool(self.cluster.gateways)

    def serve_otherwise(self) -> None:
        """Ask for another way to serve the same version."""
        deployment = self.cluster.deployments["digits"]
        deployment.spec.options.max_batch_size = self.random.choice((4, 8))
        deployment.generation += 1

    def start(self, name: str) -> None:
        self.incarnations[name] += 1
        self.cluster.workers[name] = node_pb2.Node(
            id=name,
            role=node_pb2.NODE_ROLE_WORKER,
            incarnation=str(self.incarnations[name]),
            capacity=node_pb2.Resources(cpus=CPUS),
        )

    def submit(self, number: int) -> None:
        least = self.random.randint(1, 3)
        job = job_pb2.Job(id=f"j-{number}", state=job_pb2.JOB_STATE_QUEUED, attempt=1)
        job.spec.workers.min, job.spec.workers.max = least, least + self.random.randint(0, 2)
        job.spec.resources.cpus = 1.0
        job.spec.priority = self.random.randint(0, 2)
        work = (job.spec.train, job.spec.score, job.spec.script)[number % 3]
        work.SetInParent()
        job.created_at.FromSeconds(number + 1)
        self.cluster.jobs[job.id] = job

    def step(self, chaos: float) -> None:
        self.now += 1.0
        self.disturb(chaos)
        actions = decide(self.now, self.cluster)
        if self.random.random() < chaos:  # the leader dies in the middle of its decisions
            actions = actions[: self.random.randint(0, len(actions))]
        for action in actions:
            self.apply(action)
            self.check()
        self.work(chaos)
        self.carry(chaos)

    def disturb(self, chaos: float) -> None:
        for name in self.names:
            if name not in self.cluster.workers:
                if self.random.random() > chaos:
                    self.start(name)
            elif self.random.random() < chaos / 4:
                del self.cluster.workers[name]
            elif self.random.random() < chaos / 4:
                self.start(name)  # quicker than its lease: only the incarnation tells
            elif self.random.random() < chaos / 10:
                self.cluster.draining ^= {name}
            elif self.random.random() < chaos / 10:
                self.cluster.cordoned ^= {name}
        if self.random.random() < chaos / 10:
            self.roll()
        if self.random.random() < chaos / 10:
            self.serve_otherwise()

    def calm(self) -> None:
        """Nobody keeps a node from its work any more."""
        self.cluster.draining = self.cluster.cordoned = frozenset()

    def apply(self, action: Action) -> None:
        match action:
            case PlaceGang(job=job, tasks=tasks):
                for task in tasks:
                    self.place(task)
                self.cluster.jobs[job.id] = job
            case PlaceTask(task=task, replaces=replaces):
                if replaces is not None:
                    assert task.attempt == replaces.attempt + 1
                    self.remove(replaces)
                self.place(task)
            case UpdateTask(task=task):
                assert (task.node_id, task.id) in self.cluster.tasks
                self.cluster.tasks[task.node_id, task.id] = task
            case RemoveTask(task=task):
                self.check_unused(task)
                self.remove(task)
            case UpdateJob(job=job):
                self.cluster.jobs[job.id] = job
            case UpdateDeployment(deployment=deployment):
                self.check_warm(deployment)
                self.cluster.deployments[deployment.spec.name] = deployment

    def place(self, task: task_pb2.Task) -> None:
        assert task.node_id not in self.cluster.draining | self.cluster.cordoned
        assert (task.node_id, task.id) not in self.cluster.tasks
        self.cluster.tasks[task.node_id, task.id] = task

    def remove(self, task: task_pb2.Task) -> None:
        del self.cluster.tasks[task.node_id, task.id]
        self.cluster.statuses.pop((task.node_id, task.id), None)

    def work(self, chaos: float) -> None:
        for task in self.cluster.alive():
            status = self.cluster.status_of(task)
            state = self.next_state(task, status.state, chaos)
            served = task.replica if state == task_pb2.TASK_STATE_RUNNING else status.replica
            if state != status.state or (status.replica != served and self.random.random() < 0.5):
                fresh = task_pb2.TaskStatus(
                    task_id=task.id, node_id=task.node_id, attempt=task.attempt, state=state
                )
                if task.HasField("replica"):
                    fresh.replica.CopyFrom(served)
                fresh.updated_at.FromNanoseconds(int(self.now * 1e9))
                self.cluster.statuses[task.node_id, task.id] = fresh

    def next_state(self, task: task_pb2.Task, state: int, chaos: float) -> int:
        starting, running = task_pb2.TASK_STATE_STARTING, task_pb2.TASK_STATE_RUNNING
        if state in (starting, running) and self.random.random() < chaos / 40:
            return task_pb2.TASK_STATE_FAILED
        if state == 0:
            return starting
        if state == starting:
            return running
        if task.HasField("script"):
            done = state == running and self.random.random() < 0.2
            return task_pb2.TASK_STATE_SUCCEEDED if done else state
        if task.HasField("lighthouse") or task.HasField("replica"):
            return state
        if state == running and self.random.random() < 0.2:
            return task_pb2.TASK_STATE_TRAINED
        if state == task_pb2.TASK_STATE_TRAINED and rank_of(task).publish:
            return task_pb2.TASK_STATE_SUCCEEDED
        return state

    def carry(self, chaos: float) -> None:
        """Gateways take note of the deployment, some of them late, and report their requests."""
        for name in list(self.cluster.gateways):
            if self.random.random() < chaos / 10:
                self.incarnations[name] += 1
                node = node_pb2.Node(id=name, incarnation=str(self.incarnations[name] + 1))
                self.cluster.gateways[name] = node
                self.routes.pop(name, None)
            if self.random.random() >= chaos:
                deployment = deployment_pb2.Deployment()
                deployment.CopyFrom(self.cluster.deployments["digits"])
                self.routes[name] = deployment
            if self.random.random() >= chaos:
                self.cluster.measures.add(self.now, self.report(name))

    def report(self, gateway: str) -> serving_pb2.ServingReport:
        report = serving_pb2.ServingReport(
            node_id=gateway, incarnation=self.cluster.gateways[gateway].incarnation
        )
        route = self.routes.get(gateway)
        if route is None:
            return report
        load = report.deployments.add(name="digits", traffic_revision=route.traffic_revision)
        busy = self.random.random() < 0.5
        for version in (1, 2):
            share = sum(s.percent for s in route.traffic if s.version == version) * busy
            healthy = len(self.answering(version))
            failed = share if version == 2 and self.bad else 0
            mirrored = busy and route.shadow.version == version
            load.versions.add(
                version=version,
                healthy=healthy,
                outstanding=share // 20,
                requests=share,
                errors=failed,
                compared_rows=30 * mirrored,
                agreed_rows=30 * mirrored * (not self.differs),
            )
        return report

    def answering(self, version: int) -> list[task_pb2.Task]:
        running = task_pb2.TASK_STATE_RUNNING
        return [
            task
            for task in self.cluster.alive()
            if task.replica.version == version and self.cluster.status_of(task).state == running
        ]

    def check_warm(self, deployment: deployment_pb2.Deployment) -> None:
        """No version begins to get requests before it answers, while there is one that does."""
        before = {s.version for s in self.cluster.deployments[deployment.spec.name].traffic}
        fresh = {s.version for s in deployment.traffic} - before
        if any(self.answering(version) for version in before) or not before:
            assert all(self.answering(version) for version in fresh), "sent to nobody"

    def check_unused(self, task: task_pb2.Task) -> None:
        """No gateway sends requests to a replica that answers and is stopped."""
        if task not in self.answering(task.replica.version):
            return
        for name in self.cluster.gateways:
            route = self.routes.get(name)
            if route is None:  # it has just started, and reads the newest record first
                continue
            key = f"{task.node_id}/{task.id}"
            shares = {share.version for share in route.traffic}
            assert task.replica.version not in shares or key in route.leaving, f"{key} is in use"

    def check(self) -> None:
        used, homes = defaultdict[str, float](float), Counter[str]()
        for task in self.cluster.alive():
            used[task.node_id] += task.resources.cpus
        for task in self.cluster.tasks.values():
            # A replica that moves answers at its old place until it does at the new one.
            homes[task.id] += not task.HasField("replica")
        assert all(cpus <= CPUS for cpus in used.values()), f"capacity exceeded: {dict(used)}"
        assert all(count <= 1 for count in homes.values()), f"placed twice: {homes}"
        publishers = Counter(job_of(task) for task in self.cluster.alive() if rank_of(task).publish)
        assert all(count == 1 for count in publishers.values()), f"two publish: {publishers}"
        worlds = defaultdict[str, set[tuple[int, int]]](set)
        for task in self.cluster.tasks.values():
            if task.HasField("script"):
                worlds[task.script.job_id].add((task.attempt, task.script.world_size))
        assert all(len(told) == 1 for told in worlds.values()), f"two attempts at once: {worlds}"
        for job in self.cluster.jobs.values():
            if job.state in ENDED:
                now = job.SerializeToString(deterministic=True)
                assert self.ended.setdefault(job.id, now) == now, "an ended job changed"
