"""What etcd and NATS may do under a running cluster: die, come back, forget."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from typing import Any

from aetcd.rpc import rpc_pb2, rpc_pb2_grpc

from lepton_ai.errors import UnavailableError
from lepton_runtime.bus import job_logs
from lepton_runtime.etcd import EtcdState
from lepton_runtime.nats import NatsBus
from lepton_runtime.state import Put, Snapshot, Write

SUBJECT = job_logs("job-1")


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within_reason() -> None:
        async with asyncio.timeout(45):
            await work

    asyncio.run(within_reason())


def test_a_call_waits_for_an_etcd_that_comes_back(own_etcd):
    async def scenario() -> None:
        state = EtcdState([own_etcd.address])
        await state.commit([], [Write("/a", b"1")])
        own_etcd.kill()
        reading = asyncio.create_task(state.get("/a"))
        await asyncio.to_thread(own_etcd.start_again)
        record = await reading
        assert record is not None
        assert record.value == b"1"
        await state.close()

    run(scenario())


def test_a_watch_and_a_lease_outlive_a_restart_of_etcd(own_etcd):
    async def scenario() -> None:
        state = EtcdState([own_etcd.address])
        lease = await state.lease(10)
        await state.commit([], [Write("/leased", b"", lease)])
        async with aclosing(state.watch("/")) as changes:
            assert isinstance(await anext(changes), Snapshot)
            waiting = asyncio.ensure_future(anext(changes))
            own_etcd.kill()
            await asyncio.to_thread(own_etcd.start_again)
            other = EtcdState([own_etcd.address])
            await other.commit([], [Write("/new", b"1")])
            await other.close()
            seen: set[str] = set()
            while "/new" not in seen:
                change = await waiting
                if isinstance(change, Snapshot):
                    seen |= {record.key for record in change.records}
                elif isinstance(change, Put):
                    seen.add(change.record.key)
                waiting = asyncio.ensure_future(anext(changes))
            waiting.cancel()
            await asyncio.wait([waiting])
        assert not lease.lost.is_set()
        assert await state.get("/leased") is not None
        await state.close()

    run(scenario())


def test_a_watch_outlives_a_compaction(own_etcd):
    async def scenario() -> None:
        state = EtcdState([own_etcd.address])
        async with aclosing(state.watch("/")) as changes:
            assert await anext(changes) == Snapshot((), 1)
            # What comes after the snapshot is compacted away before the watch asks for it.
            await state.commit([], [Write("/a", b"1")])
            last = await state.commit([], [Write("/a", b"2")])
            kv = rpc_pb2_grpc.KVStub(state._channel)
            await kv.Compact(rpc_pb2.CompactionRequest(revision=last, physical=True))
            change = await anext(changes)
            assert isinstance(change, Snapshot)
            assert [record.value for record in change.records] == [b"2"]
            await state.commit([], [Write("/b", b"3")])
            change = await anext(changes)
            assert isinstance(change, Put)
            assert change.record.key == "/b"
        await state.close()

    run(scenario())


def test_a_lease_that_cannot_be_renewed_is_lost(own_etcd):
    async def scenario() -> None:
        state = EtcdState([own_etcd.address])
        lease = await state.lease(2)
        own_etcd.kill()
        async with asyncio.timeout(4):
            await lease.lost.wait()
        await state.close()

    run(scenario())


def test_a_subscription_goes_on_after_a_restart_of_the_broker(own_nats):
    async def scenario() -> None:
        bus = await NatsBus.connect([f"nats://{own_nats.address}"])
        await bus.publish(SUBJECT, b"before")
        async with aclosing(bus.subscribe_all(SUBJECT)) as messages:
            assert (await anext(messages)).payload == b"before"
            waiting = asyncio.ensure_future(anext(messages))
            own_nats.kill()
            await asyncio.to_thread(own_nats.start_again)
            assert await _published_until(bus, waiting) == b"after"
        await bus.close()

    run(scenario())


def test_lost_streams_are_made_again(own_nats, tmp_path):
    async def scenario() -> None:
        bus = await NatsBus.connect([f"nats://{own_nats.address}"])
        for _ in range(5):
            await bus.publish(SUBJECT, b"before")
        async with aclosing(bus.subscribe_all(SUBJECT, 4)) as messages:
            assert (await anext(messages)).sequence == 5
            waiting = asyncio.ensure_future(anext(messages))
            own_nats.kill()
            await asyncio.to_thread(shutil.rmtree, tmp_path / "nats")
            await asyncio.to_thread(own_nats.start_again)
            assert await _published_until(bus, waiting) == b"after"
        await bus.close()

    run(scenario())


def test_publishing_into_lost_streams_makes_them_again(own_nats, tmp_path):
    async def scenario() -> None:
        bus = await NatsBus.connect([f"nats://{own_nats.address}"])
        own_nats.kill()
        await asyncio.to_thread(shutil.rmtree, tmp_path / "nats")
        await asyncio.to_thread(own_nats.start_again)
        kept: list[bytes] = []
        while not kept:
            await bus.publish(SUBJECT, b"after")
            with suppress(UnavailableError):  # while it starts
                kept = [message.payload for message in await bus.kept(SUBJECT)]
        assert set(kept) == {b"after"}
        await bus.close()

    run(scenario())


def test_without_a_broker_publishing_takes_no_longer_than_its_deadline(own_nats):
    async def scenario() -> None:
        bus = await NatsBus.connect([f"nats://{own_nats.address}"])
        own_nats.kill()
        async with asyncio.timeout(5):
            await bus.publish(SUBJECT, b"nobody hears")
        await bus.close()

    run(scenario())


def test_a_new_subscription_waits_for_a_broker_that_comes_back(own_nats):
    async def scenario() -> None:
        bus = await NatsBus.connect([f"nats://{own_nats.address}"])
        own_nats.kill()
        async with aclosing(bus.subscribe_new(SUBJECT)) as messages:
            waiting = asyncio.ensure_future(anext(messages))
            await asyncio.to_thread(own_nats.start_again)
            assert await _published_until(bus, waiting) == b"after"
        await bus.close()

    run(scenario())


async def _published_until(bus: NatsBus, waiting: asyncio.Future[Any]) -> bytes:
    while not waiting.done():
        await bus.publish(SUBJECT, b"after")
        await asyncio.wait([waiting], timeout=0.2)
    return waiting.result().payload
