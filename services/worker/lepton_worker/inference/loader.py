"""Loads models from files; unknown ones first in a process of their own, which may crash."""

from __future__ import annotations

import asyncio
import logging
import math
import resource
import sys
from pathlib import Path

from lepton_ai.errors import InvalidArgumentError, LeptonError
from lepton_worker.inference.model import Model, ModelLimits
from lepton_worker.inference.repository import ModelSource
from lepton_worker.inference.settings import Settings

_LOADS_AT_ONCE = 2

_log = logging.getLogger(__name__)


def load_file(source: ModelSource, limits: ModelLimits) -> Model:
    """Load a model from its file.

    Raises:
        InvalidArgumentError: There is no such file, it is too large, or no model.
    """
    try:
        size_bytes = source.path.stat().st_size
        if size_bytes > limits.file_bytes:
            raise InvalidArgumentError(
                f"the model has {size_bytes} bytes", hint=f"at most {limits.file_bytes} are allowed"
            )
        data = source.path.read_bytes()
    except OSError as error:
        raise InvalidArgumentError(
            f"the file of model {source.name!r} cannot be read: {error.strerror}"
        ) from error
    return Model(data, source.max_batch_size, limits)


class Loader:
    """Loads models off the event loop, each after a trial, a few at the same time.

    Args:
        settings: Limits of the trial and of the model.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = asyncio.Semaphore(_LOADS_AT_ONCE)

    async def load(self, source: ModelSource) -> Model:
        """Try a model in a process of its own, then load it here.

        Raises:
            InvalidArgumentError: It cannot be loaded within the limits; says why.
        """
        async with self._turn:
            await probe(source, self._settings)
            return await load_trusted(source, self._settings)


async def load_trusted(source: ModelSource, settings: Settings) -> Model:
    """Load a model that whoever started the server chose, off the event loop.

    Raises:
        InvalidArgumentError: There is no such file, it is too large, or no model.
    """
    limits = ModelLimits(threads=settings.threads, file_bytes=settings.max_model_bytes)
    return await asyncio.to_thread(load_file, source, limits)


async def probe(source: ModelSource, settings: Settings) -> None:
    """Load and run a model in a child process with limits.

    Raises:
        InvalidArgumentError: It could not be loaded within the limits; says why.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__),
        *(str(source.path), str(source.max_batch_size), str(settings.max_model_bytes)),
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
    path, max_batch_size, file_bytes, memory_bytes, cpu_s = arguments
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source = ModelSource("model", "1", Path(path), int(max_batch_size))
    try:
        load_file(source, ModelLimits(threads=1, file_bytes=int(file_bytes)))
    except LeptonError as error:
        sys.stdout.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
