"""Chunks that no object has here any more are removed."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from lepton_ai.proto.v1.storage_pb2 import Object
from lepton_runtime.clock import Clock
from lepton_storage.chunks import Chunks

__all__ = ["Collector"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.collecting")


class Collector:
    """A `Chore` that removes garbage. What is young may be of an object that is being stored.

    Args:
        node_id: This node.
        chunks: Its own.
        clock: Tells how old they are.
        garbage_age_s: How old a chunk must be to be removed when no object has it here.
    """

    def __init__(self, node_id: str, chunks: Chunks, clock: Clock, garbage_age_s: float) -> None:
        self._node_id = node_id
        self._chunks = chunks
        self._clock = clock
        self._garbage_age_s = garbage_age_s

    async def attend(self, manifests: Sequence[Object]) -> None:
        """Remove what is old and named by no object on this node."""
        named = {
            chunk.hash
            for manifest in manifests
            for chunk in manifest.chunks
            if self._node_id in chunk.nodes
        }
        removed = await self._chunks.collect(named, self._clock.now() - self._garbage_age_s)
        if removed:
            _log.info("chunks_removed", count=removed)
