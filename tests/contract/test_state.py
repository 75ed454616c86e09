from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from lepton_ai.errors import InvalidArgumentError, LeptonError
from lepton_ai.proto.v1.node_pb2 import Node
from lepton_runtime import keys
from lepton_runtime.election import Election
from lepton_runtime.membership import join
from lepton_runtime.state import (
    Absent,
    Change,
    Condition,
    Created,
    Delete,
    Exists,
    Lease,
    Put,
    Remove,
    Snapshot,
    State,
    Unchanged,
    Write,
)

TTL_S = 2.0


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within_reason() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(within_reason())


async def put(state: State, key: str, value: bytes, lease: Lease | None = None) -> int:
    revision = await state.commit([], [Write(key, value, lease)])
    assert revision is not None
    return revision


async def expire(state: State, lease: Any) -> None:
    """End a lease behind its owner's back."""
    if hasattr(lease, "expire"):
        lease.expire()
    else:
        await state.revoke(lease.id)  # type: ignore[attr-defined]


def test_a_record_tells_when_it_was_created_and_last_written(open_state, prefix):
    async def scenario() -> None:
        async with open_state() as state:
            assert await state.get(prefix + "a") is None
            first = await put(state, prefix + "a", b"1")
            second = await put(state, prefix + "a", b"2")
            record = await state.get(prefix + "a")
            assert record.key == prefix + "a"
            assert record.value == b"2"
            assert (record.create_revision, record.mod_revision) == (first, second)
            assert second > first

    run(scenario())


def test_a_list_holds_the_prefix_ordered_by_key(open_state, prefix):
    async def scenario() -> None:
        async with open_state() as state:
            await put(state, prefix + "b", b"")
            await put(state, prefix + "a", b"")
            last = await put(state, prefix[:-1] + "0", b"a neighbour")
            snapshot = await state.list(prefix)
            assert [record.key for record in snapshot.records] == [prefix + "a", prefix + "b"]
            assert snapshot.revision >= last

    run(scenario())


@pytest.mark.parametrize("kind", ["absent", "exists", "unchanged", "created"])
def test_a_condition_that_fails_leaves_everything_as_it_was(open_state, prefix, kind):
    async def scenario() -> None:
        async with open_state() as state:
            key = prefix + "guarded"
            created = await put(state, key, b"1")
            changed = await put(state, key, b"2")
            holding: dict[str, Condition] = {
                "absent": Absent(prefix + "nothing"),
                "exists": Exists(key),
                "unchanged": Unchanged(key, changed),
                "created": Created(key, created),
            }
            failing: dict[str, Condition] = {
                "absent": Absent(key),
                "exists": Exists(prefix + "nothing"),
                "unchanged": Unchanged(key, created),
                "created": Created(key, changed),
            }
            both = [Write(prefix + "x", b"x"), Remove(key)]
            assert await state.commit([holding[kind], failing[kind]], both) is None
            assert await state.get(prefix + "x") is None
            assert await state.commit([holding[kind]], both) is not None
            assert await state.get(prefix + "x") is not None
            assert await state.get(key) is None

    run(scenario())


def test_a_watch_begins_with_a_snapshot_and_misses_nothing(open_state, prefix):
    async def scenario() -> None:
        async with open_state() as state:
            await put(state, prefix + "old", b"0")
            async with aclosing(state.watch(prefix)) as changes:
                first = await anext(changes)
                assert isinstance(first, Snapshot)
                assert [record.value for record in first.records] == [b"0"]
                await put(state, prefix + "new", b"1")
                await put(state, prefix[:-1] + "0", b"a neighbour")
                gone = await state.commit([], [Remove(prefix + "old")])
                second, third = await anext(changes), await anext(changes)
            assert isinstance(second, Put)
            assert (second.record.key, second.record.value) == (prefix + "new", b"1")
            assert third == Delete(prefix + "old", gone)

    run(scenario())


def test_closing_a_lease_removes_its_keys(open_state, prefix):
    async def scenario() -> None:
        async with open_state() as state:
            lease = await state.lease(TTL_S)
            await put(state, prefix + "leased", b"", lease)
            await put(state, prefix + "kept", b"")
            assert not lease.lost.is_set()
            await lease.close()
            assert lease.lost.is_set()
            assert [r.key for r in (await state.list(prefix)).records] == [prefix + "kept"]

    run(scenario())


def test_a_lease_outlives_its_ttl_while_its_owner_lives_and_says_when_it_is_lost(
    open_state, prefix
):
    async def scenario() -> None:
        async with open_state() as state:
            lease = await state.lease(TTL_S)
            await put(state, prefix + "leased", b"", lease)
            await expire(state, lease)
            assert await state.get(prefix + "leased") is None
            await lease.lost.wait()
            with pytest.raises(LeptonError):
                await put(state, prefix + "leased", b"", lease)

    run(scenario())


@pytest.mark.parametrize("count", [2, 129])
def test_a_transaction_that_etcd_would_not_take_is_refused(open_state, prefix, count):
    async def scenario() -> None:
        async with open_state() as state:
            names = ["same", "same"] if count == 2 else range(count)
            with pytest.raises(InvalidArgumentError, match="128"):
                await state.commit([], [Write(f"{prefix}{name}", b"") for name in names])
            assert (await state.list(prefix)).records == ()

    run(scenario())


def test_one_leads_and_the_next_fences_it_off(open_state, prefix):
    async def scenario() -> None:
        async with open_state() as state:
            first = Election(state, prefix + "leader", "one", TTL_S)
            second = Election(state, prefix + "leader", "two", TTL_S)
            one = await first.campaign()
            waiting = asyncio.create_task(second.campaign())
            done, _ = await asyncio.wait([waiting], timeout=0.1)
            assert not done
            await first.resign()
            two = await waiting
            assert one.lost.is_set()
            assert not two.lost.is_set()
            assert two.token > one.token
            assert (await state.get(prefix + "leader")).value == b"two"
            work = [Write(prefix + "work", b"")]
            assert await state.commit([one.condition], work) is None
            assert await state.commit([two.condition], work) is not None
            await second.resign()

    run(scenario())


def test_who_led_before_leads_again_at_once_when_its_lease_seemed_lost(open_state, prefix):
    """As after etcd was away: the key is still there, and nobody else may have it for a while."""

    async def scenario() -> None:
        async with open_state() as state:
            election = Election(state, prefix + "leader", "one", TTL_S)
            before = await election.campaign()
            before.lost.set()
            async with asyncio.timeout(TTL_S / 2):
                after = await election.campaign()
            assert after.token > before.token
            assert await state.commit([before.condition], [Write(prefix + "work", b"")]) is None
            await election.resign()

    run(scenario())


def test_a_member_that_lost_its_lease_comes_back(open_state, job_id):
    async def scenario() -> None:
        async with open_state() as state:
            node = Node(id=f"node-{job_id}", address="127.0.0.1:1")
            key = keys.node(node.id)
            membership = await join(state, node, TTL_S)
            async with aclosing(state.watch(key)) as changes:
                assert [r.key for r in (await anext(changes)).records] == [key]
                await expire(state, membership._lease)
                assert isinstance(await anext(changes), Delete)
                back: Change = await anext(changes)
                assert isinstance(back, Put)
                assert Node.FromString(back.record.value) == node
                await membership.update(Node(id=node.id, address="127.0.0.1:2"))
                changed = await anext(changes)
                assert Node.FromString(changed.record.value).address == "127.0.0.1:2"
                await membership.leave()
                assert isinstance(await anext(changes), Delete)

    run(scenario())
