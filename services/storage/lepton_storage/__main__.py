"""`python -m lepton_storage`: a storage node as a process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from lepton_ai.errors import ConflictError, LeptonError
from lepton_ai.proto.v1 import node_pb2, storage_pb2, storage_pb2_grpc
from lepton_ai.rpc import open_channel
from lepton_runtime import keys
from lepton_runtime.http import HttpServer
from lepton_runtime.membership import Membership
from lepton_runtime.server import Servicer
from lepton_runtime.service import Runtime, run, serving
from lepton_runtime.state import State
from lepton_storage.aliases import Aliases
from lepton_storage.balance import Balancer
from lepton_storage.checking import Checker
from lepton_storage.chunks import Chunks
from lepton_storage.collecting import Collector
from lepton_storage.copies import Copies
from lepton_storage.data_api import LIMITS, DataApi
from lepton_storage.datasets import Datasets
from lepton_storage.disk import Disk
from lepton_storage.draining import Draining
from lepton_storage.forgetting import Forgetter
from lepton_storage.healing import Healer
from lepton_storage.keyring import Keyring, LocalMaster
from lepton_storage.maintenance import Maintenance
from lepton_storage.manifests import Manifests
from lepton_storage.members import Members
from lepton_storage.models import Models
from lepton_storage.peers import Channels
from lepton_storage.quotas import Quotas
from lepton_storage.records import Records
from lepton_storage.recovery import Recovery
from lepton_storage.registry import Registry
from lepton_storage.retention import Retention
from lepton_storage.scrubbing import Scrubber
from lepton_storage.sealing import Plain, Sealer
from lepton_storage.servicer import StorageServicer
from lepton_storage.settings import StorageSettings
from lepton_storage.store import ObjectStore

_TELL_INTERVAL_S = 5.0
_DRAIN_S = 3.0
_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage")


_Task = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class _Memory:
    """What is known of objects, and what of it this node's disk remembers."""

    manifests: Manifests
    records: Records
    recovery: Recovery


@dataclass(frozen=True)
class _Parts:
    """What a storage node is made of."""

    chunks: Chunks
    members: Members
    channels: Channels
    healer: Healer
    following: Sequence[_Task]
    chores: Sequence[_Task]
    servicer: Servicer
    api: DataApi


async def main(settings: StorageSettings, runtime: Runtime) -> None:
    """Keep chunks until told to stop."""
    memory = _memory(settings, runtime)
    # Before all else: tenants' keys are among what may have to be recovered.
    await memory.recovery.ensure()
    sealer = await _sealer(settings, runtime.state)
    parts = _build(settings, runtime, memory, sealer)
    try:
        await _serve(runtime, parts)
    finally:
        await parts.channels.close()


def _memory(settings: StorageSettings, runtime: Runtime) -> _Memory:
    folder, state = settings.data_dir, runtime.state
    manifests = Manifests(state)
    records = Records(
        folder / "records", settings.node_id, state, runtime.clock, settings.garbage_age_s
    )
    return _Memory(manifests, records, Recovery(state, manifests, records, folder / "memory"))


async def _sealer(settings: StorageSettings, state: State) -> Sealer:
    if text := settings.master_keys:
        keyring = Keyring(state, LocalMaster(text))
        await keyring.load()
        return keyring
    if (await state.list(keys.TENANT_KEYS)).records:
        raise ConflictError(
            "this cluster's chunks are encrypted and there is no master key",
            hint="set LEPTON_MASTER_KEY_FILE as on the other storage nodes",
        )
    return Plain()


def _build(settings: StorageSettings, runtime: Runtime, memory: _Memory, sealer: Sealer) -> _Parts:
    node_id, clock, state = settings.node_id, runtime.clock, runtime.state
    chunks = Chunks(Disk(settings.data_dir, settings.reserve_bytes), sealer)
    members = Members(state, clock, settings.lease_ttl_s)
    quotas, manifests = Quotas(state), memory.manifests
    channels = _channels(settings)
    copies = Copies(node_id, chunks, members, channels)
    healer = Healer(
        node_id=node_id,
        chunks=chunks,
        copies=copies,
        manifests=manifests,
        members=members,
        clock=clock,
        grace_s=settings.heal_grace_s,
    )
    chores = [
        memory.records,
        quotas,
        Forgetter(state, manifests, clock, settings.unnamed_age_s),
        Collector(node_id, chunks, clock, settings.garbage_age_s),
        healer,
        Balancer(node_id, copies, manifests, members),
    ]
    store = ObjectStore(
        copies=copies,
        manifests=manifests,
        members=members,
        quotas=quotas,
        clock=clock,
        max_object_bytes=settings.max_object_bytes,
    )
    checker = Checker(
        node_id=node_id,
        state=state,
        chunks=chunks,
        manifests=manifests,
        members=members,
        peers=channels,
    )
    return _Parts(
        chunks=chunks,
        members=members,
        channels=channels,
        healer=healer,
        following=[members.follow, sealer.follow, quotas.follow],
        chores=[
            Maintenance(
                recovery=memory.recovery,
                manifests=manifests,
                chores=chores,
                clock=clock,
                interval_s=settings.heal_interval_s,
            ).run,
            Scrubber(
                chunks,
                memory.records,
                clock,
                bytes_per_s=settings.scrub_bytes_per_s,
                interval_s=settings.scrub_interval_s,
            ).run,
        ],
        servicer=_servicer(
            runtime, store=store, chunks=chunks, sealer=sealer, quotas=quotas, checker=checker
        ),
        api=DataApi(store, chunks, runtime.verifier),
    )


def _channels(settings: StorageSettings) -> Channels:
    token, credentials = settings.service_token, settings.channel_credentials
    return Channels(
        partial(open_channel, token=token, credentials=credentials),
        token,
        settings.tls.client_context() if settings.tls else None,
    )


def _servicer(
    runtime: Runtime,
    *,
    store: ObjectStore,
    chunks: Chunks,
    sealer: Sealer,
    quotas: Quotas,
    checker: Checker,
) -> Servicer:
    datasets = Registry(runtime.state, storage_pb2.Dataset, keys.DATASETS, keys.dataset)
    models = Registry(runtime.state, storage_pb2.Model, keys.MODELS, keys.model)
    voice = (runtime.bus, runtime.clock, runtime.settings.node_id)
    aliases = Aliases(runtime.state, models, *voice)
    servicer = StorageServicer(
        store=store,
        chunks=chunks,
        sealer=sealer,
        quotas=quotas,
        checker=checker,
        datasets=Datasets(
            state=runtime.state,
            registry=datasets,
            store=store,
            bus=runtime.bus,
            clock=runtime.clock,
            node_id=runtime.settings.node_id,
        ),
        models=Models(models, store, *voice),
        known_datasets=datasets,
        known_models=models,
        aliases=aliases,
        retention=Retention(runtime.state, models, aliases),
        draining=Draining(runtime.state),
    )
    return Servicer(
        servicer,
        storage_pb2_grpc.add_StorageServiceServicer_to_server,
        storage_pb2.DESCRIPTOR.services_by_name["StorageService"],
    )


async def _serve(runtime: Runtime, parts: _Parts) -> None:
    async with asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(follow()) for follow in parts.following]
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
            background.append(tasks.create_task(_tell(runtime, parts, membership)))
            background += [tasks.create_task(chore()) for chore in parts.chores]
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
        node.disk_capacity_bytes, node.disk_free_bytes = await parts.chunks.usage()
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
