"""`python -m lepton_storage`: a storage node as a process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

import structlog

from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1 import node_pb2, storage_pb2, storage_pb2_grpc
from lepton_ai.rpc import open_channel
from lepton_runtime import keys
from lepton_runtime.http import HttpServer
from lepton_runtime.membership import Membership
from lepton_runtime.server import Servicer
from lepton_runtime.service import Runtime, run, serving
from lepton_storage.aliases import Aliases
from lepton_storage.copies import Copies
from lepton_storage.data_api import LIMITS, DataApi
from lepton_storage.datasets import Datasets
from lepton_storage.disk import Disk
from lepton_storage.draining import Draining
from lepton_storage.healing import Healer
from lepton_storage.manifests import Manifests
from lepton_storage.models import Models
from lepton_storage.peers import Channels, Members
from lepton_storage.registry import Registry
from lepton_storage.scrubbing import Scrubber
from lepton_storage.servicer import StorageServicer
from lepton_storage.settings import StorageSettings
from lepton_storage.store import ObjectStore

_TELL_INTERVAL_S = 5.0
_DRAIN_S = 3.0
_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage")


@dataclass(frozen=True)
class _Parts:
    """What a storage node is made of."""

    disk: Disk
    members: Members
    channels: Channels
    healer: Healer
    scrubber: Scrubber
    servicer: Servicer
    api: DataApi


async def main(settings: StorageSettings, runtime: Runtime) -> None:
    """Keep chunks until told to stop."""
    parts = _build(settings, runtime)
    try:
        await _serve(runtime, parts)
    finally:
        await parts.channels.close()


def _build(settings: StorageSettings, runtime: Runtime) -> _Parts:
    disk = Disk(settings.data_dir, settings.reserve_bytes)
    members = Members(runtime.state)
    token, credentials = settings.service_token, settings.channel_credentials
    channels = Channels(
        partial(open_channel, token=token, credentials=credentials),
        token,
        settings.tls.client_context() if settings.tls else None,
    )
    copies = Copies(settings.node_id, disk, members, channels)
    manifests = Manifests(runtime.state)
    healer = Healer(
        node_id=settings.node_id,
        disk=disk,
        copies=copies,
        manifests=manifests,
        members=members,
        clock=runtime.clock,
        grace_s=settings.heal_grace_s,
        garbage_age_s=settings.garbage_age_s,
        interval_s=settings.heal_interval_s,
    )
    scrubber = Scrubber(disk, runtime.clock, settings.scrub_bytes_per_s, settings.scrub_interval_s)
    store = ObjectStore(copies, manifests, members, runtime.clock, settings.max_object_bytes)
    servicer = _servicer(settings, runtime, store, disk)
    api = DataApi(store, disk, runtime.verifier)
    return _Parts(disk, members, channels, healer, scrubber, servicer, api)


def _servicer(
    settings: StorageSettings, runtime: Runtime, store: ObjectStore, disk: Disk
) -> Servicer:
    datasets = Registry(runtime.state, storage_pb2.Dataset, keys.DATASETS, keys.dataset)
    models = Registry(runtime.state, storage_pb2.Model, keys.MODELS, keys.model)
    voice = (runtime.bus, runtime.clock, settings.node_id)
    servicer = StorageServicer(
        store=store,
        disk=disk,
        datasets=Datasets(datasets, store, *voice),
        models=Models(models, store, *voice),
        known_datasets=datasets,
        known_models=models,
        aliases=Aliases(runtime.state, models, *voice),
        draining=Draining(runtime.state),
    )
    return Servicer(
        servicer,
        storage_pb2_grpc.add_StorageServiceServicer_to_server,
        storage_pb2.DESCRIPTOR.services_by_name["StorageService"],
    )


async def _serve(runtime: Runtime, parts: _Parts) -> None:
    async with asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(parts.members.follow())]
        # Before that, an upload would be acknowledged with the copies of a cluster of none.
        await parts.members.known()
        async with (
            _data_plane(runtime, parts.api) as data_address,
            serving(
                runtime,
                [parts.servicer],
                node_pb2.NODE_ROLE_STORAGE,
                node_pb2.Node(data_address=data_address),
            ) as membership,
        ):
            told = _tell(runtime, parts, membership)
            for chore in (parts.healer.run(), parts.scrubber.run(), told):
                background.append(tasks.create_task(chore))
            await runtime.stopping.wait()
        for task in background:
            task.cancel()


@contextlib.asynccontextmanager
async def _data_plane(runtime: Runtime, api: DataApi) -> AsyncGenerator[str]:
    """Take and give bytes inside the block; answers where."""
    settings = runtime.settings
    server = HttpServer(api.handle, LIMITS)
    tls = settings.tls.server_context() if settings.tls else None
    _, port = await server.listen(settings.host, 0, tls)
    sweeping = asyncio.create_task(server.sweep())
    try:
        yield f"{settings.reachable_host}:{port}"
    finally:
        sweeping.cancel()
        await server.drain(_DRAIN_S)


async def _tell(runtime: Runtime, parts: _Parts, membership: Membership) -> None:
    """Keep this node's record true: free space, which placement goes by, and what lacks copies."""
    while True:
        node = membership.node
        node.disk_capacity_bytes, node.disk_free_bytes = await parts.disk.usage()
        node.under_replicated_chunks = parts.healer.health.under_replicated
        node.unreadable_chunks = parts.healer.health.unreadable
        node.chunks = parts.healer.health.here
        known = parts.members.nodes.get(node.id)
        node.draining = known is not None and known.draining
        try:
            await membership.update(node)
        except LeptonError as error:
            _log.warning("record_not_told", error=str(error))
        await runtime.clock.sleep(_TELL_INTERVAL_S)


if __name__ == "__main__":
    run(StorageSettings, main)
