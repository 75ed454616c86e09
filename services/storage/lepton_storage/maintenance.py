"""Rounds over all objects, in which a node does its share of looking after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1.storage_pb2 import Object
from lepton_runtime.clock import Clock
from lepton_storage.manifests import Manifests
from lepton_storage.recovery import Recovery

__all__ = ["Chore", "Maintenance"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.maintenance")


class Chore(Protocol):
    """Something to do in each round."""

    async def attend(self, manifests: Sequence[Object]) -> None:
        """Do it, given the manifests of all objects as they are now."""
        ...


class Maintenance:
    """Does chores, one after the other, round after round.

    Args:
        recovery: Comes before each round: what nobody told is not gone.
        manifests: All objects.
        chores: In the order in which they are done.
        clock: Paces the rounds.
        interval_s: Pause between rounds.
    """

    def __init__(
        self,
        *,
        recovery: Recovery,
        manifests: Manifests,
        chores: Sequence[Chore],
        clock: Clock,
        interval_s: float,
    ) -> None:
        self._recovery = recovery
        self._manifests = manifests
        self._chores = chores
        self._clock = clock
        self._interval_s = interval_s

    async def run(self) -> None:
        """Go on until cancelled. What fails is logged and tried again in the next round."""
        while True:
            try:
                await self.round()
            except (LeptonError, OSError) as error:
                _log.warning("round_failed", error=str(error))
            await self._clock.sleep(self._interval_s)

    async def round(self) -> None:
        """One round."""
        await self._recovery.ensure()
        manifests = await self._manifests.list()
        for chore in self._chores:
            await self._done(chore, manifests)

    async def _done(self, chore: Chore, manifests: Sequence[Object]) -> None:
        """A full disk keeps one chore from its work, and not the others."""
        try:
            await chore.attend(manifests)
        except (LeptonError, OSError) as error:
            _log.warning("chore_failed", chore=type(chore).__name__, error=str(error))
