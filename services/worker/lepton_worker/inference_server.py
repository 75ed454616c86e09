"""The node's inference server as its agent sees it: a child that loads and unloads models."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import structlog

from lepton_ai.errors import InternalError, InvalidArgumentError, LeptonError, UnavailableError
from lepton_ai.rpc import TlsFiles
from lepton_worker.child import Child, start_child
from lepton_worker.settings import Listen

__all__ = ["InferenceServer"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.inference")
_LOAD_S = 60.0
_RESTART_S = 0.5
_Model = tuple[str, str]
_Fields = dict[str, Any]


class InferenceServer:
    """Keeps the server running, and in it the models that it was told to load."""

    def __init__(self, listen: Listen, threads: int, memory_bytes: int) -> None:
        self._listen = listen
        self._arguments = [
            f"--threads={threads}",
            f"--model-memory-mib={max(1, memory_bytes >> 20)}",
            *_tls_arguments(listen.tls),
        ]
        self._child: Child | None = None
        self._listening = asyncio.Event()
        self._loaded: dict[_Model, _Fields] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._ids = itertools.count(1)
        self.address = ""

    async def run(self) -> None:
        """Keep it running until cancelled."""
        try:
            while True:
                await self._run_once()
                _log.warning("inference server died", again_in_s=_RESTART_S)
                await asyncio.sleep(_RESTART_S)
        finally:
            if self._child is not None:
                await self._child.stop()

    async def until_listening(self) -> str:
        """Wait until it answers; returns its ``host:port``."""
        await self._listening.wait()
        return self.address

    async def load(self, name: str, version: str, steps: list[_Fields], options: _Fields) -> None:
        """Serve a model, or serve it in another way: the old one answers until the new one can.

        Args:
            name: Its name for clients.
            version: Its version, in decimal.
            steps: For each model of an ensemble the ``path`` of its file and its ``inputs``.
            options: How it is served, as `ServingOptions` names it.

        Raises:
            InvalidArgumentError: It cannot be served; what was served before goes on.
            UnavailableError: The server died meanwhile.
        """
        fields = {"name": name, "version": version, "steps": steps, "options": options}
        before = self._loaded.get((name, version))
        self._loaded[name, version] = fields
        try:
            await self._ask({"op": "load", **fields})
        except InvalidArgumentError:
            del self._loaded[name, version]
            if before is not None:
                self._loaded[name, version] = before
            raise

    async def unload(self, name: str, version: str) -> None:
        """Serve a model no more."""
        if self._loaded.pop((name, version), None) is not None:
            await self._ask({"op": "unload", "name": name, "version": version})

    async def _run_once(self) -> None:
        # Always at the port that others have been told.
        port = self.address.rpartition(":")[2] or "0"
        arguments = ["--control", f"--http={self._listen.bind}:{port}", *self._arguments]
        self._child = await start_child("lepton_worker.inference", arguments)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._print(self._child))
            tasks.create_task(self._hear(self._child))
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(UnavailableError("the inference server died"))
        self._waiting.clear()
        self._listening.clear()

    async def _hear(self, child: Child) -> None:
        async for event in child.events():
            if event["event"] == "listening":
                port = event["http_address"].rpartition(":")[2]
                self.address = f"{self._listen.host}:{port}"
                self._listening.set()
                for fields in self._loaded.values():
                    await child.tell({"op": "load", "id": 0, **fields})
            future = self._waiting.pop(event.get("id") or 0, None)
            if future is not None and not future.done():
                _settle(future, event)

    async def _print(self, child: Child) -> None:
        async for line in child.printed():
            _log.info("inference", text=line)

    async def _ask(self, command: dict[str, Any]) -> None:
        await self._listening.wait()
        assert self._child is not None
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._child.tell({**command, "id": number})
        try:
            async with asyncio.timeout(_LOAD_S):
                await future
        except TimeoutError:
            raise UnavailableError(
                f"the inference server has not done it within {_LOAD_S:g} s"
            ) from None


def _tls_arguments(tls: TlsFiles | None) -> list[str]:
    if tls is None:
        return []
    return [
        f"--tls-certificate={tls.certificate}",
        f"--tls-key={tls.key}",
        f"--tls-client-authority={tls.authority}",
    ]


def _settle(future: asyncio.Future[None], event: dict[str, Any]) -> None:
    if event["event"] != "failed":
        future.set_result(None)
        return
    invalid = event.get("code") == "INVALID_ARGUMENT"
    error: LeptonError = (InvalidArgumentError if invalid else InternalError)(event["error"])
    future.set_exception(error)
