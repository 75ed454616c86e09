"""What the server does for a client, whichever protocol the client speaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray

from lepton_ai.errors import LeptonError, UnavailableError
from lepton_ai.oip import Tensor
from lepton_ai.oip.rest import Answer, InferenceRequest
from lepton_worker.inference.batcher import Batcher, Lane
from lepton_worker.inference.cache import AnswerCache, content_key
from lepton_worker.inference.queue import DEFAULT_PRIORITY, Caller, Outcome, Work
from lepton_worker.inference.repository import ReadyModel, Repository
from lepton_worker.inference.signature import TensorSpec

Finish = Callable[[Answer | LeptonError], None]


class InferenceService:
    """Requests in, answers out.

    Args:
        repository: The models.
        batcher: Computes.
    """

    def __init__(self, repository: Repository, batcher: Batcher) -> None:
        self.repository = repository
        self._batcher = batcher
        # Whether requests are taken: the first models are loaded, and nothing drains. Loading
        # another model later does not change it.
        self.ready = False

    def admit(self, name: str, version: str) -> ReadyModel:
        """The model that will answer; refuses before a request costs any work.

        Raises:
            UnavailableError: The server or the model is not ready.
            NotFoundError: There is no such model or version.
            ResourceExhaustedError: As many requests wait for it as may.
        """
        if not self.ready:
            raise UnavailableError("the server is not ready", hint="try again")
        model = self.repository.find(name, version)
        model.lane.queue.check_room()
        return model

    def infer(
        self,
        model: ReadyModel,
        request: InferenceRequest,
        limit_us: int,
        caller: Caller,
        finish: Finish,
    ) -> None:
        """Answer a request later, by calling `finish` on the event loop.

        Args:
            model: What answers.
            request: The request.
            limit_us: Microseconds after which its answer is of no use; 0 for never.
            caller: Who waits.
            finish: Called once.

        Raises:
            LeptonError: The request does not fit the model, or is refused now.
        """
        now_ns = time.monotonic_ns()
        signature = model.signature
        arrays = signature.arrange(request.inputs)
        selected = signature.select([output.name for output in request.outputs])
        answered = partial(_finish, model, request.request_id, selected, finish)
        if model.lane.cache is not None:
            entry = _Entry(model.lane, model.lane.cache, content_key(arrays), now_ns)
            if entry.answer(answered):
                return
            answered = partial(entry.keep, answered)
        work = Work(
            arrays=arrays,
            rows=signature.rows(arrays),
            key=_batch_key(arrays),
            priority=request.priority or DEFAULT_PRIORITY,
            arrived_ns=now_ns,
            deadline_ns=now_ns + limit_us * 1000 if limit_us else 0,
            caller=caller,
            finish=answered,
        )
        self._batcher.submit(model.lane, work)

    def server_metadata(self) -> dict[str, Any]:
        """Name, version and extensions, as the protocol writes them."""
        from importlib.metadata import version

        return {
            "name": "lepton",
            "version": version("lepton-ai"),
            "extensions": [
                "binary_tensor_data",
                "model_configuration",
                "model_repository",
                "parameters",
                "statistics",
            ],
        }

    def model_metadata(self, name: str, version: str) -> dict[str, Any]:
        """Inputs and outputs of a model, as the protocol writes them."""
        model = self.repository.find(name, version)
        return {
            "name": name,
            "versions": self.repository.versions(name),
            "platform": "onnxruntime_onnx",
            "inputs": [_describe(spec) for spec in model.signature.inputs],
            "outputs": [_describe(spec) for spec in model.signature.outputs],
        }

    def model_config(self, name: str, version: str) -> dict[str, Any]:
        """How a model is served, as Triton writes it."""
        model = self.repository.find(name, version)
        signature = model.signature
        batched = bool(signature.max_batch_size)
        config: dict[str, Any] = {
            "name": name,
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "max_batch_size": signature.max_batch_size,
            "input": [_configure(spec, batched) for spec in signature.inputs],
            "output": [_configure(spec, batched) for spec in signature.outputs],
            "model_transaction_policy": {"decoupled": False},
        }
        if batched:
            queue = model.lane.queue
            config["dynamic_batching"] = {
                "preferred_batch_size": sorted(queue.preferred_sizes) or [signature.max_batch_size],
                "max_queue_delay_microseconds": queue.max_delay_ns // 1000,
            }
        return config

    def model_statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """What models did since they were loaded: one, or all when `name` is empty."""
        models = [self.repository.find(name, version)] if name else self.repository.ready_models()
        return {
            "model_stats": [
                {"name": model.name, "version": model.version, **model.lane.statistics.report()}
                for model in models
            ]
        }

    def index(self) -> list[dict[str, str]]:
        """Every version of every model and its state."""
        return [
            {
                "name": entry.source.name,
                "version": entry.source.version,
                "state": entry.state,
                "reason": entry.reason,
            }
            for entry in self.repository.entries()
        ]


def _finish(
    model: ReadyModel, request_id: str, selected: Sequence[int], finish: Finish, outcome: Outcome
) -> None:
    if isinstance(outcome, LeptonError):
        finish(outcome)
        return
    specs = model.signature.outputs
    outputs: list[Tensor] = []
    for place in selected:
        name, datatype, _ = specs[place]
        outputs.append(Tensor(name, datatype, outcome[place]))
    finish(Answer(model.name, model.version, request_id, outputs))


class _Entry(NamedTuple):
    """One request's place in its model's cache."""

    lane: Lane
    cache: AnswerCache
    key: bytes
    arrived_ns: int

    def answer(self, finish: Callable[[Outcome], None]) -> bool:
        """Answer with what was kept; False when nothing was."""
        outputs = self.cache.get(self.key)
        if outputs is None:
            return False
        finish(outputs)
        took_ns = time.monotonic_ns() - self.arrived_ns
        self.lane.statistics.cache_hit.add(took_ns)
        self.lane.statistics.success.add(took_ns)
        return True

    def keep(self, finish: Callable[[Outcome], None], outcome: Outcome) -> None:
        """Keep what came of the request, then answer it."""
        if not isinstance(outcome, LeptonError):
            self.cache.put(self.key, outcome)
            self.lane.statistics.cache_miss.add(time.monotonic_ns() - self.arrived_ns)
        finish(outcome)


def _batch_key(arrays: list[NDArray[Any]]) -> Hashable:
    return tuple([array.shape[1:] for array in arrays])


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configure(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype
    dims = list(spec.shape[1:] if batched else spec.shape)
    return {"name": spec.name, "data_type": f"TYPE_{datatype}", "dims": dims}
