"""Puts the inference server together and runs it: `python -m lepton_worker.inference`."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys

import uvloop

from lepton_ai.errors import LeptonError
from lepton_ai.malloc import keep_freed_memory, use_one_heap
from lepton_runtime.garbage import collect_garbage
from lepton_runtime.http import HttpLimits, HttpServer
from lepton_runtime.http2.connection import speak
from lepton_worker.inference.app import App
from lepton_worker.inference.batcher import Batcher
from lepton_worker.inference.control import Control
from lepton_worker.inference.grpc_api import GrpcApi
from lepton_worker.inference.grpc_streams import streaming
from lepton_worker.inference.loader import Loader
from lepton_worker.inference.model import load_engine
from lepton_worker.inference.parent import follow_parent
from lepton_worker.inference.repository import Repository
from lepton_worker.inference.repository_control import AgentsControl, ClientsControl
from lepton_worker.inference.residents import Residents
from lepton_worker.inference.rest_api import RestApi
from lepton_worker.inference.service import InferenceService
from lepton_worker.inference.settings import Settings, TlsFiles, parse

_log = logging.getLogger("lepton_worker.inference")
_KEPT_BYTES = 64 << 20


async def serve(settings: Settings) -> None:
    """Run the server until it is told to stop.

    Raises:
        LeptonError: A model of the command line cannot be loaded.
        OSError: The address is not free.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    load_engine()
    loader = Loader(settings)
    batcher = Batcher(settings.compute_threads, loop)
    residents = Residents(batcher, settings.model_memory_bytes)
    repository = Repository(loader.try_first if settings.controlled else loader.trust, residents)
    service = InferenceService(repository, batcher)
    async with asyncio.TaskGroup() as tasks:
        server = HttpServer(
            _app(settings, service, tasks).handle,
            _http_limits(settings),
            speak(streaming(settings.max_body_bytes)),
        )
        tls = _tls_context(settings.tls) if settings.tls else None
        address = await server.listen(settings.host, settings.port, tls)
        if settings.grpc_address:
            await server.listen(*settings.grpc_address, tls)
        background = [tasks.create_task(server.sweep())]
        if settings.controlled:
            commands = _follow_commands(settings, repository, address, stop)
            background.append(tasks.create_task(commands))
        for source in settings.models:
            await repository.load(source)
        background.append(tasks.create_task(collect_garbage()))
        service.ready = True
        _log.info("listening on %s:%s", *address)
        await stop.wait()
        service.ready = False
        await server.drain(settings.drain_timeout_s)
        for task in background:
            task.cancel()
    await asyncio.to_thread(batcher.stop)


def main() -> int:
    """Read the command line, run, and say in one line what went wrong."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    use_one_heap()
    keep_freed_memory(_KEPT_BYTES)
    failures: list[BaseException] = []
    try:
        settings = parse(sys.argv[1:])
        if settings.controlled:
            follow_parent()
        uvloop.run(serve(settings))
    except* (LeptonError, OSError) as group:
        failures.extend(group.exceptions)
    for failure in failures:
        _log.error("%s", failure)
    return 1 if failures else 0


def _app(settings: Settings, service: InferenceService, tasks: asyncio.TaskGroup) -> App:
    repository = service.repository
    control = AgentsControl() if settings.controlled else ClientsControl(repository, tasks)
    rest = RestApi(service, control, settings.max_body_bytes)
    return App(rest, GrpcApi(service, control), repository)


async def _follow_commands(
    settings: Settings, repository: Repository, address: tuple[str, int], stop: asyncio.Event
) -> None:
    control = Control(repository, stop.set, settings.defaults)
    commands = await control.open()
    control.emit("listening", http_address=f"{address[0]}:{address[1]}")
    await control.run(commands)


def _http_limits(settings: Settings) -> HttpLimits:
    return HttpLimits(
        body_bytes=settings.max_body_bytes, buffered_bytes=settings.max_buffered_bytes
    )


def _tls_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.client_authority)
    context.load_cert_chain(files.certificate, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


if __name__ == "__main__":
    sys.exit(main())
