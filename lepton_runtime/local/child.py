"""Child processes that are started again when they die."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from lepton_ai.errors import LeptonError, UnavailableError
from lepton_runtime.local.plan import Service
from lepton_runtime.servers import ServerProcess

__all__ = ["Child", "keep_server", "restart_delay_s"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 10.0
_STEADY_S = 30.0
_STOP_S = 10.0
_HOPELESS = 3


def restart_delay_s(deaths: int) -> float:
    """Seconds to wait before start number `deaths` + 1."""
    return min(_FIRST_DELAY_S * 2 ** max(0, deaths - 1), _LONGEST_DELAY_S)


class Child:
    """One service of a local cluster as a process."""

    def __init__(self, service: Service, environment: Mapping[str, str], log_file: Path) -> None:
        self.service = service
        self._environment = environment
        self._log_file = log_file
        self._process: asyncio.subprocess.Process | None = None
        self._deaths = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, writing to the end of its log."""
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.service.module,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._environment),
                start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
            )

    async def keep(self) -> None:
        """Start it again whenever it dies, until cancelled."""
        loop = asyncio.get_running_loop()
        while self._process is not None:
            began = loop.time()
            code = await self._process.wait()
            self._deaths = 1 if loop.time() - began > _STEADY_S else self._deaths + 1
            delay_s = restart_delay_s(self._deaths)
            _log.warning(
                "service_died", service=self.service.node_id, code=code, again_in_s=delay_s
            )
            await asyncio.sleep(delay_s)
            await self.start()

    def check(self) -> None:
        """Raise when it is pointless to start it again.

        Raises:
            UnavailableError: It keeps ending; names its log.
        """
        if self._deaths >= _HOPELESS:
            raise UnavailableError(
                f"{self.service.node_id} does not start", hint=f"its log is {self._log_file}"
            )

    async def stop(self) -> None:
        """End it, by force when asking does not help."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            _log.warning("service_killed", service=self.service.node_id)
            await self.kill()

    async def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()


async def keep_server(server: ServerProcess) -> None:
    """Start etcd or NATS again whenever it dies, until cancelled."""
    deaths = 0
    while True:
        code = await server.process.wait()
        deaths += 1
        _log.warning("server_died", server=server.name, code=code)
        await asyncio.sleep(restart_delay_s(deaths))
        try:
            await server.start_again()
        except LeptonError as error:
            _log.warning("server_failed", server=server.name, error=str(error))
