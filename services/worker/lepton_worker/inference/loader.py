"""Loads models from files; unknown ones first in a process of their own, which may crash."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import resource
import sys
from contextlib import ExitStack
from pathlib import Path

from lepton_ai.errors import InvalidArgumentError, LeptonError
from lepton_worker.inference.ensemble import Ensemble
from lepton_worker.inference.model import Model, ModelLimits, Servable
from lepton_worker.inference.options import ServingOptions
from lepton_worker.inference.repository import ModelSource, Step
from lepton_worker.inference.settings import Settings

_LOADS_AT_ONCE = 2
# Of a file, before the model was ever loaded: its weights, and copies that are laid out anew.
_EXPECTED_GROWTH = 2

_log = logging.getLogger(__name__)


class ModelFile:
    """A model's file, which stays open: the model can be loaded even after the file lost its name.

    Args:
        name: The model's name, for messages.
        path: The file.
        options: How it is served.
        limits: What the model may use.

    Raises:
        InvalidArgumentError: There is no such file, or it is too large.
    """

    def __init__(self, name: str, path: Path, options: ServingOptions, limits: ModelLimits) -> None:
        self._options = options
        self._limits = limits
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise InvalidArgumentError(
                f"the file of model {name!r} cannot be read: {error.strerror}"
            ) from error
        self._size_bytes = os.fstat(self._file.fileno()).st_size
        self.expected_bytes = self._size_bytes * _EXPECTED_GROWTH
        if self._size_bytes > limits.file_bytes:
            self.close()
            raise InvalidArgumentError(
                f"the model has {self._size_bytes} bytes",
                hint=f"at most {limits.file_bytes} are allowed",
            )

    def load(self) -> Model:
        """Load it in this thread.

        Raises:
            InvalidArgumentError: It is no model.
        """
        data = os.pread(self._file.fileno(), self._size_bytes, 0)
        model = Model(data, self._options, self._limits)
        self.expected_bytes = model.size_bytes
        return model

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


class SourceFiles:
    """The files of a source: one model, or an ensemble of several.

    Args:
        source: What is loaded.
        limits: What each model may use.

    Raises:
        InvalidArgumentError: A file is not there, or too large.
    """

    def __init__(self, source: ModelSource, limits: ModelLimits) -> None:
        self._inputs = [step.inputs for step in source.steps]
        with ExitStack() as opened:
            self._files: list[ModelFile] = []
            for step in source.steps:
                file = ModelFile(source.name, step.path, source.options, limits)
                opened.callback(file.close)
                self._files.append(file)
            self._close = opened.pop_all().close

    @property
    def expected_bytes(self) -> int:
        """Memory they will take when they are loaded, as far as is known."""
        return sum(file.expected_bytes for file in self._files)

    async def load(self) -> Servable:
        """Load off the event loop.

        Raises:
            InvalidArgumentError: A file is no model, or the models do not fit together.
        """
        return await asyncio.to_thread(self.load_here)

    def load_here(self) -> Servable:
        """Load in this thread.

        Raises:
            InvalidArgumentError: A file is no model, or the models do not fit together.
        """
        models = [file.load() for file in self._files]
        if len(models) == 1 and not self._inputs[0]:
            return models[0]
        return Ensemble(models, self._inputs)

    def close(self) -> None:
        """Let the files go."""
        self._close()


class Loader:
    """Makes sure that sources can be loaded, a few at the same time.

    Args:
        settings: Limits of the trial and of the model.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = asyncio.Semaphore(_LOADS_AT_ONCE)

    async def try_first(self, source: ModelSource) -> SourceFiles:
        """Where to load a model of unknown origin from, after it was tried in another process.

        Raises:
            InvalidArgumentError: It cannot be loaded within the limits; says why.
        """
        async with self._turn:
            await probe(source, self._settings)
        return await self.trust(source)

    async def trust(self, source: ModelSource) -> SourceFiles:
        """Where to load a model from that whoever started the server chose.

        Raises:
            InvalidArgumentError: There is no such file, or it is too large.
        """
        settings = self._settings
        limits = ModelLimits(threads=settings.threads, file_bytes=settings.max_model_bytes)
        return SourceFiles(source, limits)


async def probe(source: ModelSource, settings: Settings) -> None:
    """Load and run a model in a child process with limits.

    Raises:
        InvalidArgumentError: It could not be loaded within the limits; says why.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__),
        json.dumps([(str(step.path), step.inputs) for step in source.steps]),
        *(str(source.options.max_batch_size), str(settings.max_model_bytes)),
        *(str(settings.probe_memory_bytes), str(math.ceil(settings.probe_timeout_s))),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(settings.probe_timeout_s):
            output, _ = await child.communicate()
    except TimeoutError:
        raise InvalidArgumentError(
            f"model {source.name!r} did not load in {settings.probe_timeout_s:g} s"
        ) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        _log.warning("the trial of %s ended with %s", source.name, child.returncode)
        raise InvalidArgumentError(
            output.decode(errors="replace").strip()
            or f"model {source.name!r} crashed or ran out of memory when it was loaded"
        )


def main(arguments: list[str]) -> int:
    """The child: limit itself, load, run once."""
    steps, max_batch_size, file_bytes, memory_bytes, cpu_s = arguments
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    options = ServingOptions(max_batch_size=int(max_batch_size))
    parts = tuple(Step(Path(path), inputs) for path, inputs in json.loads(steps))
    source = ModelSource("model", "1", parts, options)
    try:
        SourceFiles(source, ModelLimits(threads=1, file_bytes=int(file_bytes))).load_here()
    except LeptonError as error:
        sys.stdout.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
