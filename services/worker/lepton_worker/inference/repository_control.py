"""Loading and unloading on request of clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from lepton_ai.errors import InternalError, LeptonError, UnimplementedError
from lepton_worker.inference.repository import Repository

_log = logging.getLogger(__name__)
Done = Callable[[LeptonError | None], None]


class RepositoryControl(Protocol):
    """What clients may do to the repository; `done` is called with what went wrong, or None."""

    def load(self, name: str, done: Done) -> None:
        """Load a model's known versions, or load them anew."""
        ...

    def unload(self, name: str, done: Done) -> None:
        """Take all versions of a model out of service."""
        ...


class AgentsControl:
    """In a cluster the worker's agent decides what is loaded: clients are refused."""

    def load(self, name: str, done: Done) -> None:
        """Refuse."""
        done(_refusal(name))

    def unload(self, name: str, done: Done) -> None:
        """Refuse."""
        done(_refusal(name))


class ClientsControl:
    """On its own, the server does what its clients ask, with the models it was started with."""

    def __init__(self, repository: Repository, tasks: asyncio.TaskGroup) -> None:
        self._repository = repository
        self._tasks = tasks

    def load(self, name: str, done: Done) -> None:
        """Load every known version."""
        sources = self._repository.sources(name)
        self._start([self._repository.load(source) for source in sources], done)

    def unload(self, name: str, done: Done) -> None:
        """Unload every version."""
        sources = self._repository.sources(name)
        self._start([self._repository.unload(name, source.version) for source in sources], done)

    def _start(self, steps: list[Coroutine[Any, Any, None]], done: Done) -> None:
        self._tasks.create_task(_in_turn(steps, done))


async def _in_turn(steps: list[Coroutine[Any, Any, None]], done: Done) -> None:
    try:
        for step in steps:
            await step
    except LeptonError as error:
        done(error)
    except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
        _log.exception("a change of the repository failed")
        done(InternalError("the repository could not be changed"))
    else:
        done(None)


def _refusal(name: str) -> UnimplementedError:
    return UnimplementedError(
        f"model {name!r} cannot be loaded or unloaded here", hint="use the cluster's deployments"
    )
