"""The agent's side door: commands as JSON lines on standard input, events on standard output.

Commands:
    {"op": "load", "id": 1, "name": "mnist", "version": "3", "steps": [{"path": "…"}],
     "options": {"max_batch_size": 64}}
    {"op": "load", "id": 4, "name": "pets", "version": "1",
     "steps": [{"path": "…"}, {"path": "…", "inputs": {"image": "resized"}}]}
    {"op": "unload", "id": 2, "name": "mnist", "version": "3"}
    {"op": "drain"}

Events:
    {"event": "listening", "http_address": "127.0.0.1:41234"}
    {"event": "loaded", "id": 1}, {"event": "unloaded", "id": 2}
    {"event": "failed", "id": 1, "error": "…", "code": "INVALID_ARGUMENT"}

The end of standard input is the end of the agent, and so of this process.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import orjson
from google.rpc import code_pb2

from lepton_ai.errors import InternalError, InvalidArgumentError, LeptonError, status_of
from lepton_worker.inference.options import ServingOptions
from lepton_worker.inference.repository import ModelSource, Repository, Step

_log = logging.getLogger(__name__)
_MAX_LINE_BYTES = 64 * 1024


class Control:
    """Carries out commands, each in a task of its own, and reports how they ended.

    Args:
        repository: What commands change.
        drain: Starts the end of the server.
        defaults: Options that commands do not name.
    """

    def __init__(
        self,
        repository: Repository,
        drain: Callable[[], None],
        defaults: ServingOptions,
    ) -> None:
        self._repository = repository
        self._drain = drain
        self._defaults = defaults
        self._events = cast("asyncio.WriteTransport", None)

    async def open(self) -> asyncio.StreamReader:
        """Connect to the standard streams; returns where commands come from."""
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader(limit=_MAX_LINE_BYTES)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        self._events, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
        return commands

    def emit(self, event: str, **fields: Any) -> None:
        """Report an event."""
        self._events.write(orjson.dumps({"event": event, **fields}) + b"\n")

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Carry out commands until their end, then drain."""
        async with asyncio.TaskGroup() as tasks:
            while line := await self._next_line(commands):
                tasks.create_task(self._obey(line))
        self._drain()

    async def _next_line(self, commands: asyncio.StreamReader) -> bytes:
        try:
            return await commands.readline()
        except ValueError:
            # What follows has no beginning: as good as the end.
            error = InvalidArgumentError(f"a command is longer than {_MAX_LINE_BYTES} bytes")
            self._fail(None, error)
            return b""

    async def _obey(self, line: bytes) -> None:
        command_id: Any = None
        try:
            command = _parse(line)
            command_id = command.get("id")
            done = await self._carry_out(command)
        except LeptonError as error:
            self._fail(command_id, error)
        except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
            _log.exception("command %s failed", line)
            self._fail(command_id, InternalError("the command failed"))
        else:
            self.emit(done, id=command_id)

    async def _carry_out(self, command: dict[str, Any]) -> str:
        match command.get("op"):
            case "load":
                await self._repository.load(self._source(command))
                return "loaded"
            case "unload":
                await self._repository.unload(_text(command, "name"), _text(command, "version"))
                return "unloaded"
            case "drain":
                self._drain()
                return "draining"
            case other:
                raise InvalidArgumentError(
                    f"op {other!r} does not exist", hint="allowed are load, unload and drain"
                )

    def _source(self, command: dict[str, Any]) -> ModelSource:
        fields = command.get("options", {})
        if not isinstance(fields, dict):
            raise InvalidArgumentError("the options of a command are no JSON object")
        options = self._defaults.changed(cast("dict[str, Any]", fields))
        name, version = _text(command, "name"), _text(command, "version")
        return ModelSource(name, version, _steps(command), options).checked()

    def _fail(self, command_id: Any, error: LeptonError) -> None:
        code = code_pb2.Code.Name(status_of(error).grpc)
        self.emit("failed", id=command_id, error=str(error), code=code)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        command = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidArgumentError(f"a command is not JSON: {error.msg}") from None
    if not isinstance(command, dict):
        raise InvalidArgumentError("a command is not a JSON object")
    return cast("dict[str, Any]", command)


def _steps(command: dict[str, Any]) -> tuple[Step, ...]:
    forms = command.get("steps")
    if not isinstance(forms, list) or not forms:
        raise InvalidArgumentError("the command has no steps", hint='such as [{"path": "…"}]')
    return tuple(_step(form) for form in cast("list[Any]", forms))


def _step(form: Any) -> Step:
    if not isinstance(form, dict):
        raise InvalidArgumentError("a step is no JSON object")
    fields = cast("dict[str, Any]", form)
    inputs: Any = fields.get("inputs", {})
    if not isinstance(inputs, dict):
        raise InvalidArgumentError("the inputs of a step are no JSON object")
    return Step(Path(_text(fields, "path")), cast("dict[str, str]", inputs))


def _text(command: dict[str, Any], name: str) -> str:
    value = command.get(name)
    if isinstance(value, str) and value:
        return value
    raise InvalidArgumentError(f"{name!r} of the command is {value!r}", hint="give a text")
