"""The process that carries the requests: started, watched, started again, drained."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from lepton_ai.errors import UnavailableError
from lepton_gateway.envoy.admin import Admin
from lepton_runtime.clock import Clock
from lepton_runtime.processes import find_program, leashed

__all__ = ["Envoy"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.gateway")
_READY_TIMEOUT_S = 20.0
_POLL_S = 0.05
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
# Who ran this long did not fail for being started.
_SETTLED_S = 30.0
_STOP_TIMEOUT_S = 5.0
# One JSON object a line, as this service's own logs.
_LOG_FORMAT = '{"logger": "envoy.%n", "event": "%j", "level": "%l", "timestamp": "%Y-%m-%dT%T.%eZ"}'


class Envoy:
    """One Envoy.

    Args:
        bootstrap: The file it is started with.
        admin: Asks it.
        clock: Measures pauses.
        concurrency: Its worker threads.

    Raises:
        NotFoundError: It is not installed.
    """

    def __init__(self, bootstrap: Path, admin: Admin, clock: Clock, concurrency: int) -> None:
        self._command = (
            *(find_program("envoy"), "--config-path", str(bootstrap)),
            *("--concurrency", str(concurrency)),
            *("--log-level", "warning", "--log-format", _LOG_FORMAT),
            *("--disable-hot-restart", "--drain-time-s", "1"),
        )
        self._admin = admin
        self._clock = clock
        self._pause_s = _FIRST_PAUSE_S
        self._ends = 0

    async def run(self) -> None:
        """Keep it running until cancelled."""
        while True:
            started = self._clock.monotonic()
            code = await self._run_once()
            self._ends += 1
            if self._clock.monotonic() - started > _SETTLED_S:
                self._pause_s = _FIRST_PAUSE_S
            _log.error("envoy_ended", code=code, starts_again_in_s=self._pause_s)
            await self._clock.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    async def wait_ready(self) -> None:
        """Wait until it takes requests.

        Raises:
            UnavailableError: It does not.
        """
        deadline = self._clock.monotonic() + _READY_TIMEOUT_S
        while not await self._admin.is_ready():
            if self._ends or self._clock.monotonic() > deadline:
                raise UnavailableError(
                    "Envoy does not start", hint="is the gateway's port free? its log says more"
                )
            await self._clock.sleep(_POLL_S)

    async def drain(self, timeout_s: float) -> None:
        """Let requests end; those that last longer than `timeout_s` are cut off."""
        deadline = self._clock.monotonic() + timeout_s
        try:
            await self._admin.begin_drain()
            while await self._admin.active_requests() and self._clock.monotonic() < deadline:
                await self._clock.sleep(_POLL_S)
        except UnavailableError:
            _log.warning("envoy_ended_before_drained")

    async def _run_once(self) -> int:
        child = await asyncio.create_subprocess_exec(
            *leashed(self._command),
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            return await child.wait()
        finally:
            if child.returncode is None:
                await _stop(child)


async def _stop(child: asyncio.subprocess.Process) -> None:
    child.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await child.wait()
    except TimeoutError:
        _log.warning("envoy_killed", waited_s=_STOP_TIMEOUT_S)
        child.kill()
        await child.wait()
