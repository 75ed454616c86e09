"""The same tests over the twin in memory and over the real server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from lepton_runtime.bus import Bus
from lepton_runtime.etcd import EtcdState
from lepton_runtime.memory import MemoryBus, MemoryState
from lepton_runtime.nats import NatsBus
from lepton_runtime.state import State

OpenState = Callable[[], AbstractAsyncContextManager[State]]
OpenBus = Callable[[], AbstractAsyncContextManager[Bus]]


@pytest.fixture(params=["memory", "etcd"])
def open_state(request: pytest.FixtureRequest) -> OpenState:
    address = request.getfixturevalue("etcd").address if request.param == "etcd" else None

    @asynccontextmanager
    async def opened() -> AsyncIterator[State]:
        state = EtcdState([address]) if address else MemoryState()
        try:
            yield state
        finally:
            await state.close()

    return opened


@pytest.fixture(params=["memory", "nats"])
def open_bus(request: pytest.FixtureRequest) -> OpenBus:
    address = request.getfixturevalue("nats").address if request.param == "nats" else None

    @asynccontextmanager
    async def opened() -> AsyncIterator[Bus]:
        bus = await NatsBus.connect([f"nats://{address}"]) if address else MemoryBus()
        try:
            yield bus
        finally:
            await bus.close()

    return opened


@pytest.fixture
def prefix() -> str:
    """Keys of this test alone."""
    return f"/test/{uuid.uuid4().hex}/"


@pytest.fixture
def job_id() -> str:
    """A job of this test alone."""
    return uuid.uuid4().hex
