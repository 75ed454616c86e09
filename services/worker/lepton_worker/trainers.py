"""Trainers, each a copy of one process that has imported torch, so that it is there at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog

from lepton_ai.errors import LeptonError, UnavailableError
from lepton_worker.child import Child
from lepton_worker.devices import NO_DEVICES
from lepton_worker.template import Template, open_template

__all__ = ["Trainers"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.trainers")
_MODULE = "lepton_worker.trainer"
# torchft tells of every step otherwise, in the log of the job.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RUST_LOG": "warn", **NO_DEVICES}
_WAIT_S = 120.0
_AGAIN_S = 1.0


class Trainers:
    """The node's trainers, and what they are copies of.

    To import torch takes seconds of a processor: once, and not when a rank is missed.
    """

    def __init__(self) -> None:
        self._template: Template | None = None
        self._warm = asyncio.Event()

    @property
    def spare(self) -> int:
        """Whether one would be there at once, as a number."""
        return int(self._warm.is_set())

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[Child]:
        """A trainer that waits for its work; it is ended at the end.

        Raises:
            UnavailableError: There is none.
        """
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._warm.wait()
        except TimeoutError:
            raise UnavailableError(f"no trainer was ready within {_WAIT_S:g} s") from None
        assert self._template is not None
        async with self._template.copy() as child:
            yield child

    async def keep_spare(self) -> None:
        """Keep what they are copies of until cancelled."""
        while True:
            try:
                async with open_template(_MODULE, _ENVIRONMENT) as self._template:
                    self._warm.set()
                    code = await self._template.ended()
                    _log.warning("what trainers are copies of has ended", code=code)
            except LeptonError as error:
                _log.warning("no trainer can be started", reason=str(error))
            finally:
                self._warm.clear()
            await asyncio.sleep(_AGAIN_S)
