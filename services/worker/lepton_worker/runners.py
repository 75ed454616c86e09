"""How each kind of task is run: a trainer, a lighthouse, a replica."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

import structlog

from lepton_ai.errors import (
    InvalidArgumentError,
    LeptonError,
    NotFoundError,
)
from lepton_ai.proto.v1 import deployment_pb2, job_pb2, storage_pb2, task_pb2
from lepton_ai.versions import library_versions
from lepton_runtime.bus import Bus, job_logs, job_progress
from lepton_runtime.state import State
from lepton_worker.addresses import address_of, addresses_of
from lepton_worker.child import Child, start_child
from lepton_worker.deliveries import Deliveries
from lepton_worker.devices import Devices
from lepton_worker.inference_server import InferenceServer
from lepton_worker.memory import killed_over, out_of_memory
from lepton_worker.pace import Pace
from lepton_worker.resuming import JobCheckpoints
from lepton_worker.scripts import ScriptRunner
from lepton_worker.settings import Listen
from lepton_worker.storage import WorkerStorage
from lepton_worker.trainers import Trainers

__all__ = ["Runners"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.runners")


_CHECKPOINT_INTERVAL_S = 60
_LOOK_S = 0.5
# A split that is larger comes to trainers chunk by chunk, and is mixed in windows of this size.
_WINDOW_BYTES = 256 * 1024 * 1024


class _Statuses(Protocol):
    async def write(self, task: task_pb2.Task, status: task_pb2.TaskStatus) -> None: ...


class Runners:
    """Runs tasks and says how far they are."""

    def __init__(  # noqa: PLR0917 - the composition root names each
        self,
        state: State,
        bus: Bus,
        statuses: _Statuses,
        storage: WorkerStorage,
        inference: InferenceServer,
        folder: Path,
        listen: Listen,
        devices: Devices,
    ) -> None:
        self._state = state
        self._bus = bus
        self._statuses = statuses
        self._storage = storage
        self._inference = inference
        self._folder = folder
        self._listen = listen
        self._devices = devices
        self._trainers = Trainers()
        self._pids: dict[str, int] = {}
        self._checkpoints = JobCheckpoints(state, storage)
        self._scripts = ScriptRunner(
            state, bus, statuses, storage, self._trainers, folder, listen, self._pids, devices
        )
        self._published: dict[str, asyncio.Event] = {}

    @property
    def spare_trainers(self) -> int:
        """Trainers that wait for a rank."""
        return self._trainers.spare

    def pid(self, task_id: str) -> int:
        """The process that runs a task; 0 when it shares the inference server, or has none yet."""
        return self._pids.get(task_id, 0)

    async def keep_warm(self) -> None:
        """Keep a trainer ready for the next rank."""
        await self._trainers.keep_spare()

    async def run(self, task: task_pb2.Task) -> None:
        """Run a task to its end; cancel to end it sooner."""
        runs = {
            "trainer": self._train,
            "lighthouse": self._keep_quorum,
            "replica": self._serve,
            "script": self._scripts.run,
        }
        try:
            await self._say(task, task_pb2.TASK_STATE_STARTING)
            await runs[task.WhichOneof("work") or ""](task)
        except LeptonError as error:
            user_error = isinstance(error, InvalidArgumentError | NotFoundError)
            _log.warning("task failed", task=task.id, reason=str(error))
            await self._failed(task, str(error), user_error)
        except Exception as error:  # noqa: BLE001 - one task's defect must not end the agent
            _log.error("task failed", task=task.id, exc_info=error)
            await self._failed(task, "something went wrong inside", user_error=False)

    def publish(self, task: task_pb2.Task) -> None:
        """Let a trained rank publish."""
        self._published.setdefault(task.id, asyncio.Event()).set()

    async def _keep_quorum(self, task: task_pb2.Task) -> None:
        arguments = [str(task.lighthouse.min_ranks), self._listen.bind]
        child = await start_child("lepton_worker.lighthouse", arguments)
        self._pids[task.id] = child.pid
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_drain(child))
                async for event in child.events():
                    address = f"http://{self._listen.host}:{event['port']}"
                    await self._say(task, task_pb2.TASK_STATE_RUNNING, address=address)
            await self._failed(task, "the lighthouse ended", user_error=False)
        finally:
            self._pids.pop(task.id, None)
            await child.kill()

    async def _serve(self, task: task_pb2.Task) -> None:
        replica = task.replica
        steps = replica.steps or [task_pb2.ReplicaStep(object_id=replica.object_id)]
        files = [
            {"path": await self._local(step.object_id), "inputs": dict(step.inputs)}
            for step in steps
        ]
        name, version = replica.deployment, str(replica.version)
        await self._inference.load(name, version, files, _options(replica.options))
        try:
            address = await self._inference.until_listening()
            await self._say(task, task_pb2.TASK_STATE_RUNNING, address=address)
            await asyncio.Event().wait()  # until cancelled
        finally:
            await self._inference.unload(name, version)

    async def _train(self, task: task_pb2.Task) -> None:
        work = await self._work(task)
        if task.trainer.publish:
            self.publish(task)
        try:
            async with (
                self._devices.taken(task.resources.gpus) as gpus,
                self._trainers.one() as child,
                asyncio.TaskGroup() as tasks,
            ):
                self._pids[task.id] = child.pid
                tasks.create_task(self._forward_log(task, child))
                limit = task.resources.memory_bytes
                over = tasks.create_task(killed_over(child.pid, limit))
                await child.tell(work | {"gpus": gpus})
                ended = await self._follow(task, child)
                await child.kill()
                over.cancel()
            if not ended and not over.cancelled():
                reason = out_of_memory(task.trainer.rank, over.result(), limit)
                await self._failed(task, reason, user_error=True)
            elif not ended:
                await self._failed(task, "the trainer died", user_error=False)
        finally:
            self._published.pop(task.id, None)
            self._pids.pop(task.id, None)

    async def _follow(self, task: task_pb2.Task, child: Child) -> bool:
        """Act on what a trainer tells; False when it died before its end."""
        pace = Pace()
        training = await self._training(task.trainer.spec)
        deliveries = Deliveries(self._storage, training.object_id, child)
        async with asyncio.TaskGroup() as tasks:
            paced = tasks.create_task(self._watch_pace(task, pace))
            asked = tasks.create_task(self._ask_to_publish(task, child))
            moves = tasks.create_task(self._tell_moves(task, child))
            try:
                async for event in child.events():
                    if event["event"] == "checkpoint":
                        tasks.create_task(self._keep_checkpoint(task, child, event))
                    elif event["event"] == "chunks_wanted":
                        tasks.create_task(deliveries.bring(event["numbers"]))
                    elif await self._heard(task, event, pace):
                        return True
                return False
            finally:
                paced.cancel()
                asked.cancel()
                moves.cancel()

    async def _watch_pace(self, task: task_pb2.Task, pace: Pace) -> None:
        """Say that a trainer stalls, and that it goes on."""
        stalled = False
        while True:
            await asyncio.sleep(_LOOK_S)
            if bool(pace.stalled_s) == stalled:
                continue
            stalled = not stalled
            if stalled:
                reason = f"no step for {pace.stalled_s:.0f} s; its process lives"
                _log.warning("trainer stalls", task=task.id, reason=reason)
                status = task_pb2.TaskStatus(state=task_pb2.TASK_STATE_STALLED, reason=reason)
                await self._statuses.write(task, status)
            elif pace.has_begun:
                await self._say(task, task_pb2.TASK_STATE_RUNNING)

    async def _heard(self, task: task_pb2.Task, event: dict[str, Any], pace: Pace) -> bool:
        match event["event"]:
            case "ready":
                pace.begin()
            case "progress":
                # Not before: until then a rank that joins has nothing that a peer could go on from.
                if pace.step():
                    await self._say(task, task_pb2.TASK_STATE_RUNNING)
                await self._progress(task, event)
            case "trained":
                pace.end()
                await self._say(task, task_pb2.TASK_STATE_TRAINED)
            case "published":
                await self._publish(task, event)
                return True
            case "failed":
                await self._failed(task, event["error"], event["user_error"])
                return True
            case _:
                pass
        return False

    async def _keep_checkpoint(
        self, task: task_pb2.Task, child: Child, event: dict[str, Any]
    ) -> None:
        """Store a checkpoint while training goes on; where that fails, the next may do better."""
        try:
            await self._checkpoints.keep(task, event["step"], Path(event["path"]))
        except LeptonError as error:
            _log.warning("checkpoint not stored", task=task.id, reason=str(error))
        await child.tell({"op": "checkpoint_stored"})

    async def _ask_to_publish(self, task: task_pb2.Task, child: Child) -> None:
        await self._published.setdefault(task.id, asyncio.Event()).wait()
        await child.tell({"op": "publish", "onnx": bool(task.trainer.spec.publish_as)})

    async def _publish(self, task: task_pb2.Task, event: dict[str, Any]) -> None:
        spec = task.trainer.spec
        result = job_pb2.JobResult(
            weights_object=await self._storage.store(Path(event["weights"])),
            history=event["history"],
        )
        if spec.publish_as:
            trained_on = await self._training(spec)
            result.model_version = await self._storage.publish(
                storage_pb2.Model(
                    name=spec.publish_as,
                    onnx_object=await self._storage.store(Path(event["onnx"])),
                    weights_object=result.weights_object,
                    model_config=event["config"],
                    job_id=task.trainer.job_id,
                    dataset=spec.dataset,
                    dataset_object=trained_on.object_id,
                    metrics=event["metrics"],
                    libraries=library_versions(),
                ),
                task,
            )
        status = task_pb2.TaskStatus(state=task_pb2.TASK_STATE_SUCCEEDED, result=result)
        await self._statuses.write(task, status)

    async def _training(self, spec: job_pb2.TrainSpec) -> storage_pb2.Split:
        return await self._storage.split(spec.dataset, spec.split or "train")

    async def _split(self, spec: job_pb2.TrainSpec, split: str) -> str:
        """The file of a split, or nothing for none."""
        if not split:
            return ""
        return await self._local((await self._storage.split(spec.dataset, split)).object_id)

    async def _local(self, object_id: str) -> str:
        """The file of an object, or nothing for none."""
        return str(await self._storage.fetch(object_id)) if object_id else ""

    async def _work(self, task: task_pb2.Task) -> dict[str, Any]:
        trainer, spec = task.trainer, task.trainer.spec
        training = await self._training(spec)
        size_bytes = await self._storage.size_bytes(training.object_id)
        window_bytes = spec.shuffle_window_bytes or _WINDOW_BYTES
        sharded = size_bytes > window_bytes
        return {
            "work": "rank",
            "config": spec.model_config,
            "training": "" if sharded else await self._local(training.object_id),
            "training_bytes": size_bytes if sharded else 0,
            "window_bytes": window_bytes,
            "validation": await self._split(spec, spec.validation_split),
            "weights": await self._local(spec.initial_weights_object),
            "checkpoint": str(await self._checkpoints.newest(trainer.job_id) or ""),
            "checkpoint_interval_s": spec.checkpoint_interval_s or _CHECKPOINT_INTERVAL_S,
            "checkpoint_every_steps": spec.checkpoint_every_steps,
            "folder": str(self._folder / f"{task.id}-{task.attempt}"),
            "bind": self._listen.bind,
            "host": self._listen.host,
            "lighthouse": await address_of(self._state, trainer.lighthouse_task_id),
            "replica": f"{task.id}-{task.attempt}",
            "rank": trainer.rank,
            "min_ranks": max(1, trainer.min_ranks),
            "epochs": spec.epochs,
            "batch_size": spec.batch_size,
            "validation_fraction": spec.validation_fraction,
            "seed": spec.seed,
            "shuffle": not spec.keep_order,
            "threads": max(1, int(task.resources.cpus)),
        }

    async def _tell_moves(self, task: task_pb2.Task, child: Child) -> None:
        """Tell a trainer each address that its lighthouse has."""
        lighthouse = task.trainer.lighthouse_task_id
        async with aclosing(addresses_of(self._state, lighthouse)) as addresses:
            async for address in addresses:
                await child.tell({"op": "move_lighthouse", "address": address})

    async def _progress(self, task: task_pb2.Task, event: dict[str, Any]) -> None:
        fields = {key: value for key, value in event.items() if key != "event"}
        progress = job_pb2.JobProgress(job_id=task.trainer.job_id, **fields)
        progress.at.GetCurrentTime()
        await self._bus.publish(job_progress(progress.job_id), progress.SerializeToString())

    async def _forward_log(self, task: task_pb2.Task, child: Child) -> None:
        async for text in child.printed():
            line = job_pb2.LogLine(
                job_id=task.trainer.job_id,
                rank=task.trainer.rank,
                node_id=task.node_id,
                text=text[:4096],
            )
            line.at.GetCurrentTime()
            await self._bus.publish(job_logs(line.job_id), line.SerializeToString())

    async def _say(self, task: task_pb2.Task, state: task_pb2.TaskState, address: str = "") -> None:
        await self._statuses.write(task, task_pb2.TaskStatus(state=state, address=address))

    async def _failed(self, task: task_pb2.Task, reason: str, user_error: bool) -> None:
        status = task_pb2.TaskStatus(
            state=task_pb2.TASK_STATE_FAILED, reason=reason, user_error=user_error
        )
        await self._statuses.write(task, status)


def _options(options: deployment_pb2.ServingOptions) -> dict[str, Any]:
    """What was given of the options, fit for JSON."""
    return {
        field.name: list(value) if field.is_repeated else value
        for field, value in options.ListFields()
    }


async def _drain(child: Child) -> None:
    async for text in child.printed():
        _log.info("lighthouse", text=text)
