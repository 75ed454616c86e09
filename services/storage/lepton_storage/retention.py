"""Retention: how many versions of a model are kept."""

from __future__ import annotations

import structlog

from lepton_ai.errors import ConflictError, InvalidArgumentError, NotFoundError
from lepton_ai.names import check_name
from lepton_ai.proto.v1.storage_pb2 import Model, RetentionRule
from lepton_runtime import keys
from lepton_runtime.state import Remove, State, Write
from lepton_storage.aliases import Aliases
from lepton_storage.registry import Registry

__all__ = ["Retention"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.retention")


class Retention:
    """Keeps rules and applies them.

    Args:
        state: Where rules are kept.
        models: The versions.
        aliases: Removes a version that nothing names.
    """

    def __init__(self, state: State, models: Registry[Model], aliases: Aliases) -> None:
        self._state = state
        self._models = models
        self._aliases = aliases

    async def set(self, model: str, newest: int) -> int:
        """Keep only the newest versions of a model, from now on; 0 keeps all.

        Returns:
            How many versions that removed.

        Raises:
            InvalidArgumentError: The name or the number is wrong.
        """
        key = keys.retention(check_name("model", model))
        if newest < 0:
            raise InvalidArgumentError(f"the newest {newest} versions", hint="1 or more; 0: all")
        rule = RetentionRule(newest=newest).SerializeToString()
        await self._state.commit([], [Write(key, rule) if newest else Remove(key)])
        return await self.apply(model)

    async def apply(self, model: str) -> int:
        """Remove versions beyond the rule; what an alias or a deployment names stays.

        Returns:
            How many.
        """
        record = await self._state.get(keys.retention(model))
        if record is None:
            return 0
        newest = RetentionRule.FromString(record.value).newest
        beyond = (await self._models.list(model))[:-newest]
        return sum([await self._removed(version) for version in beyond])

    async def _removed(self, version: Model) -> bool:
        try:
            await self._aliases.remove_version(version.name, version.version)
        except (ConflictError, NotFoundError):  # it is named, or another node was faster
            return False
        _log.info("version_removed", model=version.name, version=version.version)
        return True
