"""How each kind of task is run: a rank, a lighthouse, a replica."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import structlog

from lepton_ai.errors import (
    InvalidArgumentError,
    LeptonError,
    NotFoundError,
)
from lepton_ai.proto.v1 import job_pb2, storage_pb2, task_pb2
from lepton_ai.versions import library_versions
from lepton_runtime.bus import Bus
from lepton_runtime.state import State
from lepton_worker.addresses import address_of, addresses_of
from lepton_worker.child import Child, start_child
from lepton_worker.deliveries import Deliveries
from lepton_worker.devices import Devices
from lepton_worker.inference_server import InferenceServer
from lepton_worker.news import News
from lepton_worker.pace import Pace
from lepton_worker.ranks import Ranks, Statuses
from lepton_worker.replicas import Replicas
from lepton_worker.resuming import JobCheckpoints
from lepton_worker.scoring import ScoreRunner
from lepton_worker.scripts import ScriptRunner
from lepton_worker.settings import Listen
from lepton_worker.storage import WorkerStorage
from lepton_worker.trainers import Trainers

__all__ = ["Runners"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.runners")


_CHECKPOINT_INTERVAL_S = 60
# A split that is larger comes to trainers chunk by chunk, and is mixed in windows of this size.
_WINDOW_BYTES = 256 * 1024 * 1024


class Runners:
    """Runs tasks and says how far they are."""

    def __init__(  # noqa: PLR0917 - the composition root names each
        self,
        state: State,
        bus: Bus,
        statuses: Statuses,
        storage: WorkerStorage,
        inference: InferenceServer,
        folder: Path,
        listen: Listen,
        devices: Devices,
    ) -> None:
        self._state = state
        self._statuses = statuses
        self._storage = storage
        self._folder = folder
        self._listen = listen
        self._trainers = Trainers()
        self._pids: dict[str, int] = {}
        self._news = News(bus)
        self._ranks = Ranks(self._news, statuses, self._trainers, devices, self._pids)
        self._checkpoints = JobCheckpoints(state, storage)
        self._replicas = Replicas(statuses, storage, inference)
        self._scoring = ScoreRunner(state, storage, self._ranks, folder)
        self._scripts = ScriptRunner(
            state,
            self._news,
            statuses,
            storage,
            self._trainers,
            folder,
            listen,
            self._pids,
            devices,
        )

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

    async def tell(self) -> None:
        """Have people know what the ranks print and how far they are, until cancelled."""
        await self._news.tell()

    async def run(self, task: task_pb2.Task) -> None:
        """Run a task to its end; cancel to end it sooner."""
        runs = {
            "trainer": self._train,
            "lighthouse": self._keep_quorum,
            "replica": self._replicas.run,
            "script": self._scripts.run,
            "score": self._scoring.run,
        }
        try:
            await self._say(task, task_pb2.TASK_STATE_STARTING)
            await runs[task.WhichOneof("work") or ""](task)
        except LeptonError as error:
            user_error = isinstance(error, InvalidArgumentError | NotFoundError)
            _log.warning("task failed", task=task.id, reason=str(error))
            await self._ranks.failed(task, str(error), user_error)
        except Exception as error:  # noqa: BLE001 - one task's defect must not end the agent
            _log.error("task failed", task=task.id, exc_info=error)
            await self._ranks.failed(task, "something went wrong inside", user_error=False)

    def change(self, task: task_pb2.Task) -> None:
        """Have a replica that runs serve as its task says by now."""
        self._replicas.change(task)

    def publish(self, task: task_pb2.Task) -> None:
        """Let a rank that has nothing left to do publish."""
        self._ranks.publish(task)

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
            await self._ranks.failed(task, "the lighthouse ended", user_error=False)
        finally:
            self._pids.pop(task.id, None)
            await child.kill()

    async def _train(self, task: task_pb2.Task) -> None:
        work = await self._work(task)
        await self._ranks.run(task, work, lambda child: self._follow(task, child))

    async def _follow(self, task: task_pb2.Task, child: Child) -> bool:
        """Act on what a trainer tells; False when it died before its end."""
        pace = Pace()
        training = await self._training(task.trainer.spec)
        deliveries = Deliveries(self._storage, training.object_id, child)
        async with asyncio.TaskGroup() as tasks:
            paced = tasks.create_task(self._ranks.watch_pace(task, pace))
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

    async def _heard(self, task: task_pb2.Task, event: dict[str, Any], pace: Pace) -> bool:
        match event["event"]:
            case "ready":
                pace.begin()
            case "progress":
                # Not before: until then a rank that joins has nothing that a peer could go on from.
                if pace.step():
                    await self._say(task, task_pb2.TASK_STATE_RUNNING)
                await self._ranks.progress(_progress(task.trainer.job_id, **event))
            case "trained":
                pace.end()
                await self._say(task, task_pb2.TASK_STATE_TRAINED)
            case "published":
                await self._publish(task, event)
                return True
            case "failed":
                await self._ranks.failed(task, event["error"], event["user_error"])
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
        await self._ranks.until_publishing(task)
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
        await self._ranks.succeeded(task, result)

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
            "replaces": task.attempt > 1,
            "min_ranks": max(1, trainer.min_ranks),
            "epochs": spec.epochs,
            "batch_size": spec.batch_size,
            "validation_fraction": spec.validation_fraction,
            "seed": spec.seed,
            "shuffle": not spec.keep_order,
            "shards": max(1, spec.shards),
            "threads": max(1, int(task.resources.cpus)),
        }

    async def _tell_moves(self, task: task_pb2.Task, child: Child) -> None:
        """Tell a trainer each address that its lighthouse has."""
        lighthouse = task.trainer.lighthouse_task_id
        async with aclosing(addresses_of(self._state, lighthouse)) as addresses:
            async for address in addresses:
                await child.tell({"op": "move_lighthouse", "address": address})

    async def _say(self, task: task_pb2.Task, state: task_pb2.TaskState, address: str = "") -> None:
        await self._statuses.write(task, task_pb2.TaskStatus(state=state, address=address))


def _progress(job_id: str, event: str, at_ns: int, **fields: Any) -> job_pb2.JobProgress:
    """What a trainer tells of its last step, with the time it was taken at."""
    progress = job_pb2.JobProgress(job_id=job_id, **fields)
    progress.at.FromNanoseconds(at_ns)
    return progress


async def _drain(child: Child) -> None:
    async for text in child.printed():
        _log.info("lighthouse", text=text)
