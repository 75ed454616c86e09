"""Aliases: names that move between the versions of a model, compared and swapped."""

from __future__ import annotations

from lepton_ai.errors import ConflictError, NotFoundError
from lepton_ai.names import check_name
from lepton_ai.proto.v1.deployment_pb2 import Deployment, DeploymentSpec
from lepton_ai.proto.v1.event_pb2 import AliasMoved
from lepton_ai.proto.v1.storage_pb2 import Alias, Model
from lepton_runtime import keys
from lepton_runtime.bus import Bus
from lepton_runtime.clock import Clock
from lepton_runtime.events import publish_event
from lepton_runtime.state import Absent, Condition, Exists, Remove, State, Unchanged, Write
from lepton_storage.jobs import unfinished_jobs
from lepton_storage.registry import Registry

__all__ = ["Aliases"]

_TRIES = 10


class Aliases:
    """Moves, lists and forgets aliases.

    Args:
        state: Where they are kept.
        models: The versions they may point at.
        bus: Told of moves.
        clock: Tells when they were made.
        node_id: Who says so.
    """

    def __init__(
        self, state: State, models: Registry[Model], bus: Bus, clock: Clock, node_id: str
    ) -> None:
        self._state = state
        self._models = models
        self._bus = bus
        self._clock = clock
        self._node_id = node_id

    async def move(
        self, model: str, name: str, version: int, from_version: int | None = None
    ) -> Alias:
        """Point an alias at a version.

        Args:
            model: The model's name.
            name: The alias.
            version: A published version; 0 for the newest.
            from_version: Move only from there; 0 where the alias must not exist yet; None from
                wherever it is.

        Raises:
            NotFoundError: There is no such model or version.
            ConflictError: It points elsewhere; says where.
        """
        published = (await self._models.get(model, version)).version
        alias = Alias(model=model, name=check_name("alias", name), version=published)
        alias.moved_at.FromNanoseconds(int(self._clock.now() * 1e9))
        previous = await self._swap(alias, from_version)
        if previous != published:
            event = AliasMoved(alias=alias, previous=previous)
            await publish_event(self._bus, self._clock, self._node_id, event)
        return alias

    async def delete(self, model: str, name: str) -> None:
        """Forget an alias.

        Raises:
            NotFoundError: There is none of this name.
            ConflictError: A deployment follows it.
        """
        key = keys.alias(check_name("model", model), check_name("alias", name))
        for deployment in await self._deployments():
            if (deployment.spec.model, deployment.spec.alias) == (model, name):
                raise ConflictError(
                    f"deployment {deployment.spec.name!r} follows {model}@{name}",
                    hint="deploy a version instead, or undeploy it",
                )
        if await self._state.commit([Exists(key)], [Remove(key)]) is None:
            raise NotFoundError(f"model {model!r} has no alias {name!r}", hint="list the aliases")

    async def list(self, model: str = "") -> list[Alias]:
        """Aliases of a model, or of all."""
        prefix = f"{keys.ALIASES}{check_name('model', model)}/" if model else keys.ALIASES
        records = (await self._state.list(prefix)).records
        return [Alias.FromString(record.value) for record in records]

    async def remove_version(self, model: str, version: int) -> None:
        """Forget a version that nothing names.

        Raises:
            NotFoundError: There is no such model or version.
            ConflictError: An alias, a deployment or a job that has not ended names it.
        """
        published = await self._models.get(model, version)
        await self._models.remove(published, self._clock.now(), self._users)

    async def _users(self, model: Model) -> list[str]:
        """What names a version, for people."""
        aliases = [a.name for a in await self.list(model.name) if a.version == model.version]
        deployments = [
            deployment.spec.name
            for deployment in await self._deployments()
            if (model.name, model.version)
            in (*_named(deployment.spec), *_named(deployment.serving_spec))
        ]
        jobs = [
            job.id
            for job in await unfinished_jobs(self._state)
            if job.spec.score.model == f"{model.name}:{model.version}"
        ]
        return [
            *(f"alias {name!r}" for name in aliases),
            *(f"deployment {name!r}" for name in deployments),
            *(f"job {job_id!r}" for job_id in jobs),
        ]

    async def _swap(self, alias: Alias, from_version: int | None) -> int:
        """Write it, and answer which version it pointed at before."""
        key = keys.alias(alias.model, alias.name)
        for _ in range(_TRIES):
            record = await self._state.get(key)
            previous = Alias.FromString(record.value).version if record else 0
            if from_version not in (None, previous):
                raise _elsewhere(alias, previous, from_version)
            there: Condition = Unchanged(key, record.mod_revision) if record else Absent(key)
            kept, touched = await self._models.pinned(alias.model, alias.version)
            writes = [Write(key, alias.SerializeToString()), touched]
            if await self._state.commit([there, kept], writes):
                return previous
        raise ConflictError(f"alias {alias.name!r} keeps moving", hint="try again")

    async def _deployments(self) -> list[Deployment]:
        records = (await self._state.list(keys.DEPLOYMENTS)).records
        return [Deployment.FromString(record.value) for record in records]


def _elsewhere(alias: Alias, version: int, expected: int | None) -> ConflictError:
    return ConflictError(
        f"{alias.model}@{alias.name} points at {version or 'nothing'}, "
        f"not at {expected or 'nothing'}",
        hint="somebody moved it: look again",
    )


def _named(spec: DeploymentSpec) -> set[tuple[str, int]]:
    """The versions that a deployment serves: its model's, and those of an ensemble's steps."""
    steps = [(step.model, step.version) for step in (*spec.before, *spec.after)]
    return {(spec.model, spec.version), *steps}
