"""How many versions of a model stay."""

from __future__ import annotations

import asyncio

import pytest

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1.storage_pb2 import Model
from lepton_runtime import keys
from lepton_runtime.clock import ManualClock
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_storage.aliases import Aliases
from lepton_storage.registry import Pins, Registry
from lepton_storage.retention import Retention


async def nothing() -> Pins:
    return []


class Shelf:
    """Versions of the model ``m``."""

    def __init__(self) -> None:
        state = MemoryState()
        self.models = Registry(state, Model, keys.MODELS, keys.model)
        self.aliases = Aliases(state, self.models, MemoryBus(), ManualClock(), "s1")
        self.retention = Retention(state, self.models, self.aliases)

    async def publish(self, count: int) -> None:
        for _ in range(count):
            await self.models.add(Model(name="m"), lambda version: False, nothing)
            await self.retention.apply("m")

    async def versions(self) -> list[int]:
        return [model.version for model in await self.models.list("m")]


def test_the_newest_stay_and_what_is_named() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        await shelf.publish(5)
        assert await shelf.versions() == [1, 2, 3, 4, 5]
        await shelf.aliases.move("m", "champion", 2)
        assert await shelf.retention.set("m", 2) == 2
        assert await shelf.versions() == [2, 4, 5]
        await shelf.publish(1)
        assert await shelf.versions() == [2, 5, 6]
        await shelf.aliases.move("m", "champion", 6)
        await shelf.publish(1)
        assert await shelf.versions() == [6, 7]

    asyncio.run(scenario())


def test_without_a_rule_all_stay() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        await shelf.publish(2)
        await shelf.retention.set("m", 1)
        assert await shelf.retention.set("m", 0) == 0
        await shelf.publish(3)
        assert await shelf.versions() == [2, 3, 4, 5]
        with pytest.raises(InvalidArgumentError):
            await shelf.retention.set("m", -1)
        with pytest.raises(InvalidArgumentError):
            await shelf.retention.set("../m", 1)

    asyncio.run(scenario())
