from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1.event_pb2 import Event, LeaderElected
from lepton_ai.proto.v1.node_pb2 import Node
from lepton_runtime.bus import EVENTS, SERVING, job_logs, job_progress
from lepton_runtime.clock import ManualClock
from lepton_runtime.events import publish_event


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within_reason() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(within_reason())


def test_kept_messages_come_in_order_and_can_be_continued(open_bus, job_id):
    async def scenario() -> None:
        async with open_bus() as bus:
            subject = job_logs(job_id)
            for text in (b"1", b"2", b"3"):
                await bus.publish(subject, text)
            await bus.publish(job_progress(job_id), b"of another subject")
            async with aclosing(bus.subscribe_all(subject)) as messages:
                read = [await anext(messages) for _ in range(3)]
            assert [message.payload for message in read] == [b"1", b"2", b"3"]
            assert {message.subject for message in read} == {subject}
            async with aclosing(bus.subscribe_all(subject, read[1].sequence)) as messages:
                assert (await anext(messages)).payload == b"3"
            assert await bus.kept(subject, read[0].sequence) == read[1:]
            assert await bus.kept(job_logs(job_id + "none")) == []

    run(scenario())


def test_a_follower_hears_at_once_what_is_published(open_bus, job_id):
    async def scenario() -> None:
        async with open_bus() as bus:
            subject = job_logs(job_id)
            await bus.publish(subject, b"old")
            async with aclosing(bus.subscribe_all(subject)) as messages:
                await anext(messages)
                loop = asyncio.get_running_loop()
                for number in range(5):
                    waiting = asyncio.ensure_future(anext(messages))
                    await asyncio.sleep(0.05)
                    began = loop.time()
                    await bus.publish(subject, str(number).encode())
                    assert (await waiting).payload == str(number).encode()
                    assert loop.time() - began < 0.5

    run(scenario())


def test_a_new_subscription_hears_nothing_old(open_bus, job_id):
    async def scenario() -> None:
        async with open_bus() as bus:
            subject = job_progress(job_id)
            await bus.publish(subject, b"old")
            async with aclosing(bus.subscribe_new(subject)) as messages:
                waiting = asyncio.ensure_future(anext(messages))
                while not waiting.done():
                    await bus.publish(subject, b"new")
                    await asyncio.wait([waiting], timeout=0.05)
                assert waiting.result().payload == b"new"

    run(scenario())


def test_what_is_said_is_heard_by_those_who_listen_and_kept_by_nobody(open_bus, job_id):
    async def scenario() -> None:
        async with open_bus() as bus:
            await bus.say(f"{SERVING}.{job_id}", b"old")
            async with aclosing(bus.listen(f"{SERVING}.*")) as messages:
                waiting = asyncio.ensure_future(anext(messages))
                while not waiting.done():
                    await bus.say(f"{SERVING}.{job_id}", b"new")
                    await asyncio.wait([waiting], timeout=0.05)
                heard = waiting.result()
            assert (heard.subject, heard.payload) == (f"{SERVING}.{job_id}", b"new")

    run(scenario())


def test_a_message_with_a_known_id_is_dropped(open_bus, job_id):
    async def scenario() -> None:
        async with open_bus() as bus:
            for text in (b"first", b"again"):
                await bus.publish(job_logs(job_id), text, message_id=job_id)
            assert [message.payload for message in await bus.kept(job_logs(job_id))] == [b"first"]

    run(scenario())


def test_wildcards_match_tokens(open_bus, job_id):
    async def scenario() -> None:
        async with open_bus() as bus:
            await bus.publish(job_logs(job_id), b"a line")
            await bus.publish(job_progress(job_id), b"a step")
            everything = [m.payload for m in await bus.kept(f"lepton.v1.jobs.{job_id}.>")]
            assert everything == [b"a line", b"a step"]
            logs = {m.subject for m in await bus.kept("lepton.v1.jobs.*.logs")}
            assert job_logs(job_id) in logs
            assert job_progress(job_id) not in logs

    run(scenario())


def test_an_event_says_what_when_and_by_whom(open_bus, job_id):
    async def scenario() -> None:
        async with open_bus() as bus:
            clock = ManualClock(1_700_000_000.0)
            fact = LeaderElected(node_id=job_id, fencing_token=7)
            await publish_event(bus, clock, "scheduler-1", fact)
            kept = await bus.kept(f"{EVENTS}.LeaderElected")
            event = Event.FromString(kept[-1].payload)
            assert event.leader_elected == fact
            assert event.source == "scheduler-1"
            assert event.at.seconds == 1_700_000_000

    run(scenario())


def test_what_is_no_event_is_refused(open_bus):
    async def scenario() -> None:
        async with open_bus() as bus:
            with pytest.raises(InvalidArgumentError, match="NodeJoined"):
                await publish_event(bus, ManualClock(), "x", Node(id="n"))

    run(scenario())
