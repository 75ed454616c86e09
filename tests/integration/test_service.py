"""A service as a process: its settings, its record in the cluster, its end."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from lepton_ai.proto.v1.node_pb2 import NODE_ROLE_STORAGE, Node
from lepton_runtime import keys
from lepton_runtime.auth import make_keys
from lepton_runtime.etcd import EtcdState
from lepton_runtime.processes import free_port, leashed
from lepton_runtime.state import Delete, Put, Snapshot

PROGRAM = """
from lepton_ai.proto.v1.node_pb2 import NODE_ROLE_STORAGE
from lepton_runtime.service import run, serving
from lepton_runtime.settings import RuntimeSettings

async def main(settings, runtime):
    async with serving(runtime, [], NODE_ROLE_STORAGE):
        await runtime.stopping.wait()

run(RuntimeSettings, main)
"""
DEADLINE_S = 20.0


@pytest.fixture
def environment(etcd: Any, nats: Any, tmp_path: Path) -> dict[str, str]:
    make_keys(tmp_path / "keys", time.time())
    return {
        **os.environ,
        "LEPTON_NODE_ID": f"node-{uuid.uuid4().hex[:8]}",
        "LEPTON_ETCD_ENDPOINTS": json.dumps([etcd.address]),
        "LEPTON_NATS_SERVERS": json.dumps([f"nats://{nats.address}"]),
        "LEPTON_DATA_DIR": str(tmp_path / "data"),
        "LEPTON_KEYS_DIR": str(tmp_path / "keys"),
    }


def start(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stderr=subprocess.PIPE, text=True
    )


def entry(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The next entry of this kind in the process's log."""
    assert process.stderr is not None
    while select.select([process.stderr], [], [], DEADLINE_S)[0]:
        line = process.stderr.readline()
        assert line, "the log ended"
        found = json.loads(line)
        if found["event"] == event:
            return found
    raise AssertionError(f"no {event} in the log")


@pytest.fixture
def service(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with start(environment) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_service_joins_and_leaves(service, environment, etcd):
    async def scenario() -> None:
        ready = await asyncio.to_thread(entry, service, "ready")
        key = keys.node(environment["LEPTON_NODE_ID"])
        state = EtcdState([etcd.address])
        async with asyncio.timeout(DEADLINE_S), aclosing(state.watch(key)) as changes:
            first = await anext(changes)
            assert isinstance(first, Snapshot)
            node = Node.FromString(first.records[0].value)
            assert node.role == NODE_ROLE_STORAGE
            assert node.address == ready["address"]
            assert node.incarnation
            assert ready["node"] == node.id
            service.send_signal(signal.SIGTERM)
            assert isinstance(await anext(changes), Delete)
        await state.close()
        assert await asyncio.to_thread(service.wait, DEADLINE_S) == 0

    asyncio.run(scenario())


def test_a_killed_service_is_gone_within_its_time_to_live(environment, etcd):
    async def scenario() -> None:
        key = keys.node(environment["LEPTON_NODE_ID"])
        state = EtcdState([etcd.address])
        with start({**environment, "LEPTON_LEASE_TTL_S": "2"}) as process:
            async with asyncio.timeout(DEADLINE_S), aclosing(state.watch(key)) as changes:
                assert isinstance(await anext(changes), Snapshot)
                assert isinstance(await anext(changes), Put)
                process.kill()
                killed = asyncio.get_running_loop().time()
                assert isinstance(await anext(changes), Delete)
                assert asyncio.get_running_loop().time() - killed < 4
        await state.close()

    asyncio.run(scenario())


def test_its_calls_are_counted(environment):
    port = free_port()
    with start({**environment, "LEPTON_METRICS_PORT": str(port)}) as process:
        try:
            entry(process, "ready")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                assert b"lepton_grpc_call_seconds" in answer.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("LEPTON_PORT", "-1", "port"), ("LEPTON_HOST", "0.0.0.0", "without TLS")],
)
def test_wrong_settings_end_it_with_one_line(environment, name, value, reason):
    with start({**environment, name: value}) as process:
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert reason in errors
    assert len(errors.splitlines()) == 1


def test_it_dies_with_its_parent(environment):
    parent = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {PROGRAM!r}]).wait()"
    with subprocess.Popen(
        leashed([sys.executable, "-c", parent]),
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        entry(process, "ready")
        process.kill()
        assert process.stderr is not None
        # The end of the log: nobody is left to write it.
        assert select.select([process.stderr], [], [], DEADLINE_S)[0]
        assert process.stderr.read() == ""


def test_a_health_check_tells_a_service_from_none(environment):
    environment = {**environment, "LEPTON_PORT": str(free_port())}
    check = [sys.executable, "-m", "lepton_runtime.healthcheck"]
    assert subprocess.call(check, env=environment, timeout=DEADLINE_S) == 1
    with start(environment) as process:
        try:
            entry(process, "ready")
            assert subprocess.call(check, env=environment, timeout=DEADLINE_S) == 0
        finally:
            process.kill()
