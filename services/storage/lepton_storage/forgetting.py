"""Objects that nothing names are forgotten once they are old."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from lepton_ai.proto.v1.storage_pb2 import Object
from lepton_runtime.clock import Clock
from lepton_runtime.state import State
from lepton_storage.manifests import Manifests
from lepton_storage.references import references

__all__ = ["Forgetter"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.forgetting")
_INTERVAL_S = 60.0


class Forgetter:
    """A `Chore` that removes manifests: of deleted models, of checkpoints of a cancelled job.

    What is young may be named yet; storing an object again makes it young.

    Args:
        state: Has what names objects.
        manifests: Has the objects.
        clock: Tells how old they are.
        unnamed_age_s: How old an object must be to be forgotten when nothing names it.
    """

    def __init__(
        self, state: State, manifests: Manifests, clock: Clock, unnamed_age_s: float
    ) -> None:
        self._state = state
        self._manifests = manifests
        self._clock = clock
        self._unnamed_age_s = unnamed_age_s
        self._next_at = 0.0

    async def attend(self, manifests: Sequence[Object]) -> None:
        """Forget what is old and unnamed; every minute, for all names must be read for it."""
        if self._clock.monotonic() < self._next_at:
            return
        self._next_at = self._clock.monotonic() + _INTERVAL_S
        made_before = self._clock.now() - self._unnamed_age_s
        old = [item.id for item in manifests if item.created_at.ToNanoseconds() < made_before * 1e9]
        if not old:
            return
        named = await references(self._state)
        for object_id in old:
            if object_id not in named and await self._manifests.expire(object_id, made_before):
                _log.info("object_forgotten", object=object_id)
