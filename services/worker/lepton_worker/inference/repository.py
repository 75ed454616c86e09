"""The models of this server: which versions are loaded, loading, or could be loaded."""

from __future__ import annotations

import asyncio
import difflib
import logging
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lepton_ai.errors import InvalidArgumentError, LeptonError, NotFoundError, UnavailableError
from lepton_worker.inference.batcher import Lane
from lepton_worker.inference.model import Servable
from lepton_worker.inference.options import ServingOptions
from lepton_worker.inference.queue import RequestQueue
from lepton_worker.inference.residents import Loadable, Residents
from lepton_worker.inference.signature import Signature

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_UNLOAD_TIMEOUT_S = 30.0


class Step(NamedTuple):
    """One of the models that make a version.

    Attributes:
        path: The ONNX file.
        inputs: Which tensor of the steps before an input takes, where names differ.
    """

    path: Path
    inputs: Mapping[str, str] = {}


class ModelSource(NamedTuple):
    """Where a version of a model comes from.

    Attributes:
        name: The model's name.
        version: Its version, in decimal.
        steps: The model; or several that run in a row, an ensemble.
        options: How it is served.
    """

    name: str
    version: str
    steps: tuple[Step, ...]
    options: ServingOptions

    def checked(self) -> ModelSource:
        """Itself.

        Raises:
            InvalidArgumentError: The name or the version does not match its pattern.
        """
        if not _NAME.fullmatch(self.name):
            raise InvalidArgumentError(
                f"model name {self.name!r} is not allowed", hint=f"names match {_NAME.pattern}"
            )
        if not _VERSION.fullmatch(self.version):
            raise InvalidArgumentError(
                f"version {self.version!r} is not allowed", hint="versions are 1, 2, 3, …"
            )
        return self


@dataclass(slots=True)
class Entry:
    """One version of one model.

    Attributes:
        source: Where it comes from.
        state: READY, LOADING, UNLOADING or UNAVAILABLE.
        reason: Why it is not ready.
        lane: Its queue while it is ready. Its model may sleep: it is loaded when asked for.
    """

    source: ModelSource
    state: str = "UNAVAILABLE"
    reason: str = ""
    lane: Lane | None = None


class ReadyModel(NamedTuple):
    """A version that answers."""

    name: str
    version: str
    signature: Signature
    lane: Lane


class Repository:
    """Finds models for requests; loads and unloads them.

    Args:
        prepare: Makes sure that a source can be loaded, and returns where from.
        residents: Which models are in memory.
    """

    def __init__(
        self, prepare: Callable[[ModelSource], Awaitable[Loadable]], residents: Residents
    ) -> None:
        self._prepare = prepare
        self._residents = residents
        self._entries: dict[str, dict[str, Entry]] = {}
        # Changes of one model are made one after another, in the order they were asked for.
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # What a request names, straight to what answers it; "" is the latest version.
        self._ready: dict[tuple[str, str], ReadyModel] = {}

    def find(self, name: str, version: str = "") -> ReadyModel:
        """The ready version of a model; the latest when `version` is empty.

        Raises:
            NotFoundError: There is no such model or version.
            UnavailableError: There is, but it is not ready.
        """
        model = self._ready.get((name, version))
        return model if model is not None else self._explain(name, version)

    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether a version would be found."""
        return (name, version) in self._ready

    def versions(self, name: str) -> list[str]:
        """The ready versions of a model, lowest first."""
        return sorted((v for n, v in self._ready if n == name and v), key=int)

    def ready_models(self) -> list[ReadyModel]:
        """Every ready version of every model."""
        return [model for (_, version), model in self._ready.items() if version]

    def entries(self) -> Iterable[Entry]:
        """Every version of every model, ready or not."""
        return [entry for versions in self._entries.values() for entry in versions.values()]

    def sources(self, name: str) -> list[ModelSource]:
        """Where the known versions of a model come from.

        Raises:
            NotFoundError: No such model was ever loaded here.
        """
        if name not in self._entries:
            raise self._no_model(name)
        return [entry.source for entry in self._entries[name].values()]

    async def load(self, source: ModelSource) -> None:
        """Load a version, or load it anew; the old one answers until the new one is warm.

        Raises:
            LeptonError: It cannot be loaded; what was loaded before goes on.
        """
        source.checked()
        async with self._locks[source.name]:
            await self._load_alone(source)

    async def unload(self, name: str, version: str) -> None:
        """Take a version out of service, once what was admitted is answered.

        Raises:
            NotFoundError: There is no such version.
        """
        async with self._locks[name]:
            await self._unload_alone(name, version)

    async def _load_alone(self, source: ModelSource) -> None:
        entry = self._entries.setdefault(source.name, {}).setdefault(source.version, Entry(source))
        if entry.lane is None:
            entry.state, entry.reason = "LOADING", ""
        try:
            loadable = await self._prepare(source)
            try:
                lane = await self._residents.load(loadable, partial(_make_lane, source, loadable))
            except BaseException:
                loadable.close()
                raise
        except Exception as error:
            if entry.lane is None:
                entry.state, entry.reason = "UNAVAILABLE", _reason(error)
            raise
        retired, entry.lane = entry.lane, lane
        entry.source, entry.state = source, "READY"
        self._index(source.name)
        if retired is not None:
            await self._retire(retired)

    async def _unload_alone(self, name: str, version: str) -> None:
        entry = self._entries.get(name, {}).get(version)
        if entry is None:
            raise self._no_version(name, version)
        lane, entry.lane = entry.lane, None
        entry.state, entry.reason = "UNLOADING", "unloaded"
        self._index(name)
        if lane is not None:
            await self._retire(lane)
        entry.state = "UNAVAILABLE"

    async def _retire(self, lane: Lane) -> None:
        try:
            await lane.close(_UNLOAD_TIMEOUT_S)
        except TimeoutError:
            _log.warning("model %s is gone with %d requests unanswered", lane.label, lane.pending)
        self._residents.release(lane)
        lane.loadable.close()

    def _index(self, name: str) -> None:
        for key in [key for key in self._ready if key[0] == name]:
            del self._ready[key]
        for version, entry in sorted(self._entries[name].items(), key=lambda item: int(item[0])):
            if entry.lane is not None:
                ready = ReadyModel(name, version, entry.lane.signature, entry.lane)
                self._ready[name, version] = self._ready[name, ""] = ready

    def _explain(self, name: str, version: str) -> Any:
        versions = self._entries.get(name)
        if versions is None:
            raise self._no_model(name)
        if version and version not in versions:
            raise self._no_version(name, version)
        entry = versions[version] if version else next(iter(versions.values()))
        raise UnavailableError(
            f"model {name!r} is not ready", hint=f"{entry.state.lower()} {entry.reason}".strip()
        )

    def _no_model(self, name: str) -> NotFoundError:
        nearest = difflib.get_close_matches(name, self._entries, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {self._names()}"
        return NotFoundError(f"model {name!r} does not exist", hint=hint)

    def _no_version(self, name: str, version: str) -> NotFoundError:
        known = ", ".join(sorted(self._entries.get(name, {}))) or "none"
        return NotFoundError(
            f"version {version!r} of model {name!r} does not exist", hint=f"there are {known}"
        )

    def _names(self) -> str:
        return ", ".join(sorted(self._entries)[:10]) or "none"


def _make_lane(source: ModelSource, loadable: Loadable, model: Servable) -> Lane:
    options = source.options
    queue = RequestQueue(
        model.signature.max_batch_size,
        options.queue_capacity,
        frozenset(options.preferred_batch_sizes),
        options.max_queue_delay_us * 1000,
    )
    label = f"{source.name}:{source.version}"
    return Lane(label, model, queue, loadable, options.cache_bytes)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, LeptonError) else "it could not be read"
