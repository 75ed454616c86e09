"""Names that move between versions, and versions that may go."""

from __future__ import annotations

import asyncio

import pytest

from lepton_ai.errors import ConflictError, InvalidArgumentError, NotFoundError
from lepton_ai.proto.v1.deployment_pb2 import Deployment, DeploymentSpec
from lepton_ai.proto.v1.storage_pb2 import Model
from lepton_runtime import keys
from lepton_runtime.clock import ManualClock
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_runtime.state import Write
from lepton_storage.aliases import Aliases
from lepton_storage.registry import Pins, Registry


async def nothing() -> Pins:
    return []


class Shelf:
    """A registry with three versions of a model, and its aliases."""

    def __init__(self) -> None:
        self.state = MemoryState()
        self.models = Registry(self.state, Model, keys.MODELS, keys.model)
        self.aliases = Aliases(self.state, self.models, MemoryBus(), ManualClock(), "s1")

    async def publish(self, count: int = 1) -> None:
        for _ in range(count):
            await self.models.add(Model(name="m", job_id="j"), lambda version: False, nothing)

    async def deploy(self, **spec: object) -> None:
        record = Deployment(spec=DeploymentSpec(name="d", model="m", **spec))  # pyright: ignore
        await self.state.commit([], [Write(keys.deployment("d"), record.SerializeToString())])


def test_an_alias_moves_only_from_where_it_is_thought_to_be() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        await shelf.publish(3)
        assert (await shelf.aliases.move("m", "champion", 1, from_version=0)).version == 1
        with pytest.raises(ConflictError, match="points at 1, not at nothing"):
            await shelf.aliases.move("m", "champion", 2, from_version=0)
        with pytest.raises(ConflictError, match="points at 1, not at 2"):
            await shelf.aliases.move("m", "champion", 3, from_version=2)
        assert (await shelf.aliases.move("m", "champion", 2, from_version=1)).version == 2
        assert (await shelf.aliases.move("m", "champion", 0)).version == 3
        [alias] = await shelf.aliases.list("m")
        assert (alias.name, alias.version) == ("champion", 3)

    asyncio.run(scenario())


def test_of_many_moves_at_once_one_succeeds() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        await shelf.publish(3)
        await shelf.aliases.move("m", "champion", 1)
        moves = [shelf.aliases.move("m", "champion", n, from_version=1) for n in (2, 3, 2, 3)]
        results = await asyncio.gather(*moves, return_exceptions=True)
        assert sum(not isinstance(result, ConflictError) for result in results) == 1

    asyncio.run(scenario())


def test_what_does_not_exist_is_not_pointed_at() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        await shelf.publish()
        with pytest.raises(NotFoundError):
            await shelf.aliases.move("m", "champion", 2)
        with pytest.raises(NotFoundError):
            await shelf.aliases.move("other", "champion", 1)
        with pytest.raises(InvalidArgumentError):
            await shelf.aliases.move("m", "../champion", 1)
        with pytest.raises(NotFoundError):
            await shelf.aliases.delete("m", "champion")

    asyncio.run(scenario())


def test_a_version_in_use_stays_and_a_number_never_comes_twice() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        await shelf.publish(2)
        await shelf.aliases.move("m", "champion", 2)
        with pytest.raises(ConflictError, match="alias 'champion'"):
            await shelf.aliases.remove_version("m", 2)
        await shelf.aliases.delete("m", "champion")
        await shelf.deploy(version=2)
        with pytest.raises(ConflictError, match="deployment 'd'"):
            await shelf.aliases.remove_version("m", 2)
        await shelf.deploy(version=1)
        await shelf.aliases.remove_version("m", 2)
        assert [model.version for model in await shelf.models.list("m")] == [1]
        with pytest.raises(NotFoundError):
            await shelf.models.get("m", 2)
        with pytest.raises(NotFoundError):
            await shelf.aliases.move("m", "champion", 2)
        await shelf.publish()
        assert [model.version for model in await shelf.models.list_all()] == [1, 3]

    asyncio.run(scenario())


def test_an_alias_that_is_followed_stays() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        await shelf.publish()
        await shelf.aliases.move("m", "champion", 1)
        await shelf.deploy(version=1, alias="champion")
        with pytest.raises(ConflictError, match="follows"):
            await shelf.aliases.delete("m", "champion")

    asyncio.run(scenario())


def test_a_version_is_not_removed_while_an_alias_moves_to_it() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        await shelf.publish(2)
        results = await asyncio.gather(
            shelf.aliases.move("m", "champion", 1),
            shelf.aliases.remove_version("m", 1),
            return_exceptions=True,
        )
        kept = {model.version for model in await shelf.models.list("m")}
        assert all(alias.version in kept for alias in await shelf.aliases.list("m"))
        assert any(isinstance(result, ConflictError | NotFoundError) for result in results)

    asyncio.run(scenario())
