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
from lepton_ai.malloc import keep_freed_memory, use_one_heap
from lepton_ai.proto.v1 import node_pb2, storage_pb2, storage_pb2_grpc
from lepton_ai.rpc import open_channel
from lepton_runtime import keys
from lepton_runtime.garbage import collect_garbage
from lepton_runtime.http import HttpServer
from lepton_runtime.membership import Membership
from lepton_runtime.server import Servicer
from lepton_runtime.service import Runtime, run, serving
from lepton_runtime.state import State
from lepton_storage.aliases import Aliases
from lepton_storage.checking import Checker
from lepton_storage.collecting import Collector
from lepton_storage.data_api import LIMITS, DataApi
from lepton_storage.datasets import Datasets
from lepton_storage.draining import Draining
from lepton_storage.forgetting import Forgetter
from lepton_storage.keeping import Keeping, Surroundings, in_object_store, on_disks
from lepton_storage.keyring import Keyring, LocalMaster
from lepton_storage.maintenance import Maintenance
from lepton_storage.manifests import Manifests
from lepton_storage.members import Members
from lepton_storage.models import Models
from lepton_storage.outliving import JobSweeper
from lepton_storage.peers import Channels
from lepton_storage.quotas import Quotas
from lepton_storage.records import Records
from lepton_storage.recovery import Recovery
from lepton_storage.registry import Registry
from lepton_storage.retention import Retention
from lepton_storage.sealing import Plain, Sealer
from lepton_storage.servicer import StorageServicer
from lepton_storage.settings import StorageSettings
from lepton_storage.store import ObjectStore

_TELL_INTERVAL_S = 5.0
_DRAIN_S = 3.0
_KEPT_BYTES = 64 << 20
_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage")


_Task = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class _Parts:
    """What a storage node is made of."""

    keeping: Keeping
    members: Members
    following: Sequence[_Task]
    background: Sequence[_Task]
    servicer: Servicer
    api: DataApi


async def main(settings: StorageSettings, runtime: Runtime) -> None:
    """Keep chunks until told to stop."""
    folder, state = settings.data_dir, runtime.state
    manifests = Manifests(state)
    records = Records(
        folder / "records", settings.holder, state, runtime.clock, settings.garbage_age_s
    )
    recovery = Recovery(state, manifests, records, folder / "memory")
    # Before all else: tenants' keys are among what may have to be recovered.
    await recovery.ensure()
    members = Members(state, runtime.clock, settings.lease_ttl_s)
    channels = _channels(settings)
    around = Surroundings(
        settings=settings,
        clock=runtime.clock,
        sealer=await _sealer(settings, state),
        members=members,
        peers=channels,
        manifests=manifests,
        records=records,
    )
    parts = _build(runtime, around, recovery)
    try:
        await _serve(runtime, parts)
    finally:
        await channels.close()


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


def _build(runtime: Runtime, around: Surroundings, recovery: Recovery) -> _Parts:
    settings, clock, state = around.settings, runtime.clock, runtime.state
    keeping = (in_object_store if settings.object_store_url else on_disks)(around)
    quotas, chunks = Quotas(state), keeping.chunks
    chores = [
        around.records,
        quotas,
        JobSweeper(state, around.manifests),
        Forgetter(state, around.manifests, clock, settings.unnamed_age_s),
        Collector(settings.holder, chunks, clock, settings.garbage_age_s),
        *keeping.chores,
    ]
    maintenance = Maintenance(
        recovery=recovery,
        manifests=around.manifests,
        chores=chores,
        clock=clock,
        interval_s=settings.heal_interval_s,
    )
    store = ObjectStore(
        copies=keeping.copies,
        manifests=around.manifests,
        addresses=lambda: {name: node.data_address for name, node in keeping.holders().items()},
        quotas=quotas,
        clock=clock,
        max_object_bytes=settings.max_object_bytes,
    )
    return _Parts(
        keeping=keeping,
        members=around.members,
        following=[around.members.follow, around.sealer.follow, quotas.follow],
        background=[maintenance.run, *keeping.background],
        servicer=_servicer(runtime, around, keeping, store, quotas),
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
    around: Surroundings,
    keeping: Keeping,
    store: ObjectStore,
    quotas: Quotas,
) -> Servicer:
    checker = Checker(
        node_id=around.settings.holder,
        state=runtime.state,
        chunks=keeping.chunks,
        manifests=around.manifests,
        holders=keeping.holders,
        peers=around.peers,
    )
    datasets = Registry(runtime.state, storage_pb2.Dataset, keys.DATASETS, keys.dataset)
    models = Registry(runtime.state, storage_pb2.Model, keys.MODELS, keys.model)
    voice = (runtime.bus, runtime.clock, runtime.settings.node_id)
    aliases = Aliases(runtime.state, models, *voice)
    servicer = StorageServicer(
        store=store,
        chunks=keeping.chunks,
        sealer=around.sealer,
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
        running = [tasks.create_task(follow()) for follow in parts.following]
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
            running.append(tasks.create_task(collect_garbage()))
            running.append(tasks.create_task(_tell(runtime, parts, membership)))
            running += [tasks.create_task(work()) for work in parts.background]
            await runtime.stopping.wait()
        for task in running:
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
        node.disk_capacity_bytes, node.disk_free_bytes = await parts.keeping.chunks.usage()
        health = parts.keeping.health()
        node.under_replicated_chunks = health.under_replicated
        node.unreadable_chunks = health.unreadable
        node.chunks = health.here
        known = parts.members.nodes.get(node.id)
        node.draining = known is not None and known.draining
        try:
            await membership.update(node)
        except LeptonError as error:
            _log.warning("record_not_told", error=str(error))
        await runtime.clock.sleep(_TELL_INTERVAL_S)


if __name__ == "__main__":
    use_one_heap()
    keep_freed_memory(_KEPT_BYTES)
    run(StorageSettings, main)
