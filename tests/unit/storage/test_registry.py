"""Versions of datasets and models."""

from __future__ import annotations

import asyncio

import pytest

from lepton_ai.errors import ConflictError, InvalidArgumentError, NotFoundError
from lepton_ai.proto.v1.storage_pb2 import Model
from lepton_ai.proto.v1.task_pb2 import Task
from lepton_runtime import keys
from lepton_runtime.fencing import still_placed
from lepton_runtime.memory import MemoryState
from lepton_runtime.state import Remove, Write
from lepton_storage.registry import Pins, Registry


def registry() -> Registry[Model]:
    return Registry(MemoryState(), Model, keys.MODELS, keys.model)


async def nothing() -> Pins:
    return []


def never(version: Model) -> bool:
    return False


def test_an_attempt_that_was_replaced_publishes_nothing() -> None:
    async def scenario() -> None:
        state = MemoryState()
        models = Registry(state, Model, keys.MODELS, keys.model)

        async def placed() -> Task:
            revision = await state.commit([], [Write(keys.task("w1", "j-r0", 1), b"")])
            return Task(id="j-r0", node_id="w1", attempt=1, placed_revision=revision)

        stale = await placed()
        await state.commit([], [Remove(keys.task("w1", "j-r0", 1))])
        fresh = await placed()
        with pytest.raises(ConflictError, match="was replaced"):
            await models.add(Model(name="m"), never, nothing, [still_placed(stale)])
        assert await models.list_all() == []
        kept, _ = await models.add(Model(name="m"), never, nothing, [still_placed(fresh)])
        assert kept.version == 1

    asyncio.run(scenario())


def test_versions_count_up_also_when_many_publish_at_once() -> None:
    async def scenario() -> None:
        models = registry()
        entries = [Model(name="mnist", job_id=str(number)) for number in range(5)]
        kept = await asyncio.gather(*(models.add(entry, never, nothing) for entry in entries))
        assert sorted(model.version for model, _ in kept) == [1, 2, 3, 4, 5]
        assert [model.version for model in await models.list("mnist")] == [1, 2, 3, 4, 5]
        assert (await models.get("mnist", 0)).version == 5
        assert (await models.get("mnist", 2)).version == 2

    asyncio.run(scenario())


def test_what_is_the_same_is_kept_once() -> None:
    async def scenario() -> None:
        models = registry()
        calls = [
            models.add(Model(name="m", job_id="j"), lambda version: version.job_id == "j", nothing)
            for _ in range(3)
        ]
        kept = await asyncio.gather(*calls)
        assert {model.version for model, _ in kept} == {1}
        assert sorted(is_new for _, is_new in kept) == [False, False, True]

    asyncio.run(scenario())


def test_names_that_begin_alike_are_different() -> None:
    async def scenario() -> None:
        models = registry()
        await models.add(Model(name="mnist"), never, nothing)
        await models.add(Model(name="mnist-2"), never, nothing)
        assert [model.name for model in await models.list("mnist")] == ["mnist"]
        assert [model.name for model in await models.list_all()] == ["mnist", "mnist-2"]

    asyncio.run(scenario())


def test_what_is_missing_is_named() -> None:
    async def scenario() -> None:
        models = registry()
        with pytest.raises(NotFoundError, match="there are 0 models"):
            await models.get("mnist", 0)
        await models.add(Model(name="mnist"), never, nothing)
        with pytest.raises(NotFoundError, match="did you mean 'mnist'"):
            await models.get("mnits", 0)
        with pytest.raises(NotFoundError, match="has no version 2: its newest is 1"):
            await models.get("mnist", 2)
        with pytest.raises(InvalidArgumentError):
            await models.get("mnist", -1)
        with pytest.raises(InvalidArgumentError):
            await models.list("../models")

    asyncio.run(scenario())
