"""What jobs and deployments are made from: found, checked, and pinned to a version."""

from __future__ import annotations

import json
from typing import TypeVar

from google.protobuf.message import Message

from lepton_ai.errors import InvalidArgumentError, NotFoundError
from lepton_ai.learn.config import ModelConfig
from lepton_ai.proto.v1 import job_pb2, storage_pb2
from lepton_runtime import keys
from lepton_runtime.state import State
from lepton_scheduler.sharding import how_many_shards, shard_rows
from lepton_scheduler.submission import check_variant, newest, not_found

__all__ = ["Sources"]

_MessageT = TypeVar("_MessageT", bound=Message)
_INPUTS, _LABELS = "x", "y"


class Sources:
    """Finds models, datasets and code. Answers name a version where the question did not."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def pin(self, spec: job_pb2.JobSpec) -> None:
        """Refuse a job that is made from what is not stored; write the versions into it.

        Raises:
            NotFoundError: Something is not there; says what is.
            InvalidArgumentError: It is there, and cannot be used for this.
        """
        if spec.HasField("train"):
            await self._pin_training(spec.train)
        elif spec.HasField("score"):
            await self._pin_scoring(spec)
        elif await self._state.get(keys.object_(spec.script.source_object)) is None:
            raise NotFoundError("the code is not stored", hint="store its folder first")

    async def model(self, name: str, version: int) -> storage_pb2.Model:
        """A published version, the newest for 0."""
        everything = await self._all(keys.MODELS, storage_pb2.Model)
        models = [model for model in everything if not model.HasField("deleted_at")]
        mine = [model for model in models if model.name == name]
        return newest(mine, name, version, {model.name for model in models})

    async def alias(self, model: str, name: str) -> storage_pb2.Alias:
        """Where an alias points."""
        record = await self._state.get(keys.alias(model, name))
        if record is None:
            aliases = await self._all(keys.ALIASES, storage_pb2.Alias)
            raise not_found(
                f"alias of model {model!r}", name, {a.name for a in aliases if a.model == model}
            )
        return storage_pb2.Alias.FromString(record.value)

    async def _pin_training(self, train: job_pb2.TrainSpec) -> None:
        dataset = await self._dataset(train.dataset)
        train.dataset = f"{dataset.name}:{dataset.version}"
        train.split = train.split or "train"
        for split in filter(None, (train.split, train.validation_split)):
            _split(dataset, split)

    async def _pin_scoring(self, spec: job_pb2.JobSpec) -> None:
        score = spec.score
        model = await self._named_model(score.model)
        check_variant(score.variant, model)
        dataset = await self._dataset(score.dataset)
        score.model = f"{model.name}:{model.version}"
        score.dataset = f"{dataset.name}:{dataset.version}"
        has_test = any(split.name == "test" for split in dataset.splits)
        split = _split(dataset, score.split or ("test" if has_test else "train"))
        score.split = split.name
        if not score.output:
            _check_measurable(model, split)
        size_bytes = await self._size_bytes(split.object_id)
        score.shard_rows = shard_rows(split.rows, size_bytes, spec.workers.max, score.shard_rows)
        # Further ranks would find nothing to do.
        most = how_many_shards(split.rows, score.shard_rows)
        spec.workers.max = max(spec.workers.min, min(spec.workers.max, most))

    async def _named_model(self, text: str) -> storage_pb2.Model:
        """What "name", "name:3" or "name@alias" stands for."""
        name, _, alias = text.partition("@")
        if alias:
            return await self.model(name, (await self.alias(name, alias)).version)
        name, _, version = text.partition(":")
        if version and not version.isdigit():
            raise InvalidArgumentError(f"version {version!r} is no number", hint="such as digits:3")
        return await self.model(name, int(version or 0))

    async def _dataset(self, text: str) -> storage_pb2.Dataset:
        """What "name" or "name:3" stands for."""
        name, _, wanted = text.partition(":")
        datasets = await self._all(keys.DATASETS, storage_pb2.Dataset)
        versions = {
            d.version: d for d in datasets if d.name == name and not d.HasField("deleted_at")
        }
        if not versions:
            raise not_found("dataset", name, {d.name for d in datasets})
        if wanted and (not wanted.isdigit() or int(wanted) not in versions):
            raise NotFoundError(
                f"dataset {name!r} has no version {wanted!r}",
                hint=f"versions: {', '.join(map(str, sorted(versions)))}",
            )
        return versions[int(wanted) if wanted else max(versions)]

    async def _size_bytes(self, object_id: str) -> int:
        record = await self._state.get(keys.object_(object_id))
        if record is None:
            raise NotFoundError("the dataset's content is not stored", object=object_id)
        return storage_pb2.Object.FromString(record.value).size_bytes

    async def _all(self, prefix: str, kind: type[_MessageT]) -> list[_MessageT]:
        return [kind.FromString(r.value) for r in (await self._state.list(prefix)).records]


def _split(dataset: storage_pb2.Dataset, name: str) -> storage_pb2.Split:
    splits = {split.name: split for split in dataset.splits}
    if name not in splits:
        raise NotFoundError(
            f"dataset '{dataset.name}:{dataset.version}' has no split {name!r}",
            hint=f"splits: {', '.join(sorted(splits))}",
        )
    return splits[name]


def _check_measurable(model: storage_pb2.Model, split: storage_pb2.Split) -> None:
    """Refuse to evaluate a model that names no loss, or on data without labels."""
    missing = {_INPUTS, _LABELS} - {column.name for column in split.columns}
    if missing:
        raise InvalidArgumentError(
            f"split {split.name!r} has no column {min(missing)!r}",
            hint="an evaluation needs inputs x and labels y",
        )
    config = ModelConfig.from_dict(json.loads(model.model_config)) if model.model_config else None
    if config is None or config.objective is None:
        raise InvalidArgumentError(
            f"model '{model.name}:{model.version}' names no loss",
            hint="predict with it, and compare the outputs yourself",
        )
