"""Copies that nobody reads are read too, so that decay is found while there is a good copy."""

from __future__ import annotations

import structlog
from prometheus_client import Counter

from lepton_ai.errors import DataCorruptError, NotFoundError
from lepton_runtime.clock import Clock
from lepton_storage.chunks import Chunks
from lepton_storage.records import Records

__all__ = ["Scrubber"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.scrubbing")
_read_bytes = Counter("lepton_storage_scrubbed_bytes", "Bytes of chunks read by the scrubber.")
_bad = Counter("lepton_storage_bad_copies", "Bad copies that the scrubber found.")
# It pauses each time it has read this much, and not for every small chunk.
_BURST_BYTES = 8 * 1024 * 1024


class Scrubber:
    """Reads every chunk of this node, again and again, at a bounded rate.

    A bad copy is set aside as it is read; healing then fetches a good one.

    Args:
        chunks: What it reads.
        records: What it reads then.
        clock: Paces it.
        bytes_per_s: It reads no faster.
        interval_s: Pause between two passes.
    """

    def __init__(
        self,
        chunks: Chunks,
        records: Records,
        clock: Clock,
        *,
        bytes_per_s: int,
        interval_s: float,
    ) -> None:
        self._chunks = chunks
        self._records = records
        self._clock = clock
        self._bytes_per_s = bytes_per_s
        self._interval_s = interval_s

    async def run(self) -> None:
        """Scrub until cancelled."""
        while True:
            try:
                await self.scrub()
            except OSError as error:
                _log.error("scrub_failed", error=str(error))
            await self._clock.sleep(self._interval_s)

    async def scrub(self) -> int:
        """One pass over every chunk, and over the records.

        Returns:
            How many copies were bad.
        """
        bad = await self._records.scrub() + await self._chunks_scrubbed()
        if bad:
            _bad.inc(bad)
            _log.error("scrub_found_bad_copies", count=bad)
        return bad

    async def _chunks_scrubbed(self) -> int:
        bad = unpaid = 0
        for chunk_hash in await self._chunks.hashes():
            try:
                unpaid += len(await self._chunks.read(chunk_hash))
            except DataCorruptError:
                bad += 1
            except NotFoundError:  # it was removed since the pass began
                continue
            if unpaid >= _BURST_BYTES:
                await self._pause(unpaid)
                unpaid = 0
        _read_bytes.inc(unpaid)
        return bad

    async def _pause(self, read_bytes: int) -> None:
        _read_bytes.inc(read_bytes)
        await self._clock.sleep(read_bytes / self._bytes_per_s)
