"""Queued requests on a real cluster: each is answered once, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import nats
import numpy as np
import pytest

from lepton_ai import Cluster
from lepton_ai.datasets import load_digits
from lepton_ai.errors import ConflictError, InvalidArgumentError, NotFoundError
from lepton_ai.proto.v1 import options_pb2
from lepton_ai.webhooks import verify

from .conftest import RunningCluster, processes_of, running_cluster, until

pytestmark = pytest.mark.e2e

AT_ONCE = 16
MANY = 40
RECOVERY_S = 60.0


class Receiver:
    """Takes webhooks, and keeps them by the id of their request."""

    def __init__(self) -> None:
        self.received: dict[str, list[tuple[dict[str, str], bytes]]] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers["content-length"]))
                receiver.received.setdefault(headers["webhook-id"], []).append((headers, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEPTON_WEBHOOKS_PRIVATE", "true")
        with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
            yield running


@pytest.fixture(scope="module")
def deployed(cluster):
    from .conftest import model as made

    model = made.__wrapped__()
    images, labels = load_digits("train")
    model.fit(images[:64], labels[:64], epochs=1)
    return cluster.client.deploy(model, name="digits")


@pytest.fixture(scope="module")
def images():
    return load_digits("test")[0]


def signal_servers(cluster: RunningCluster, number: int) -> None:
    """Send a signal to every inference server."""
    found = [
        pid
        for pid, command in processes_of(cluster.home).items()
        if "lepton_worker.inference " in command
    ]
    assert found
    for pid in found:
        os.kill(pid, number)


def under_way(cluster: RunningCluster) -> int:
    """Queued requests that a gateway has taken and not answered."""
    commands = processes_of(cluster.home).values()
    command = next(c for c in commands if Path(c.split()[0]).name == "nats-server")
    port = next(word.partition("=")[2] for word in command.split() if word.startswith("--port"))

    async def asked() -> int:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        try:
            stream = client.jetstream()
            info = await stream.consumer_info("LEPTON_QUEUE_REQUESTS", "takers")
            return info.num_ack_pending or 0
        finally:
            await client.close()

    return asyncio.run(asked())


def test_each_is_answered_once_however_much_is_killed(cluster, deployed, images, receiver):
    wanted = deployed.predict(images[:MANY])
    signal_servers(cluster, signal.SIGSTOP)
    requests = [deployed.submit(image[None], webhook=receiver.url) for image in images[:MANY]]
    until(lambda: under_way(cluster) >= AT_ONCE)
    signal_servers(cluster, signal.SIGKILL)
    cluster.kill_node("gateway-1", "lepton_gateway")
    for request, row in zip(requests, wanted, strict=True):
        np.testing.assert_allclose(request.result(timeout_s=RECOVERY_S)[0], row, atol=1e-5)
    ids = [request.id for request in requests]
    until(lambda: len(receiver.received) == MANY, RECOVERY_S)
    secret = cluster.client.webhook_secret()
    assert sorted(receiver.received) == sorted(ids)
    for id_, deliveries in receiver.received.items():
        ((headers, body),) = deliveries
        assert verify(secret, headers, body, time.time()) == id_
        assert json.loads(body)["status"] == "succeeded"
    until(lambda: under_way(cluster) == 0)


def test_a_restart_of_nats_loses_no_request(cluster, deployed, images):
    signal_servers(cluster, signal.SIGSTOP)
    requests = [deployed.submit(image[None]) for image in images[:20]]
    cluster.kill_server("nats-server")
    signal_servers(cluster, signal.SIGCONT)
    for request in requests:
        assert request.result(timeout_s=RECOVERY_S).shape == (1, 10)
        assert request.status()["status"] == "succeeded"


def test_events_tell_the_outcome(cluster, deployed, images):
    request = deployed.submit(images[:1])
    connection = http.client.HTTPConnection(cluster.profile.address, timeout=RECOVERY_S)
    try:
        key = {"authorization": f"Bearer {cluster.profile.api_key}"}
        connection.request("GET", f"/v2/requests/{request.id}/events", headers=key)
        response = connection.getresponse()
        assert response.getheader("content-type") == "text/event-stream"
        assert b"event: succeeded\n" in response.read()
    finally:
        connection.close()


def test_requests_belong_to_their_tenant(cluster, deployed, images):
    request = deployed.submit(images[:1], idempotency_key="one")
    assert deployed.submit(images[:1], idempotency_key="one").id == request.id
    with pytest.raises(ConflictError, match="another request"):
        deployed.submit(images[1:2], idempotency_key="one")
    key = cluster.client.create_key(options_pb2.ROLE_INFERENCE, tenant="other").key
    with Cluster(cluster.profile.address, key) as other:
        with pytest.raises(NotFoundError, match="no request"):
            other.queued(request.id).result()
        assert other.endpoint("digits").submit(images[:1]).result().shape == (1, 10)
    found = cluster.client.queued(request.id)
    np.testing.assert_allclose(found.result(), deployed.predict(images[:1]), atol=1e-5)


def test_bad_submissions_get_a_clear_answer(cluster, deployed, images):
    with pytest.raises(InvalidArgumentError, match="at most 64"):
        deployed.submit(images[:65])
    with pytest.raises(InvalidArgumentError, match="no address"):
        deployed.submit(images[:1], webhook="file:///etc/passwd")
    with pytest.raises(NotFoundError, match="not deployed"):
        cluster.client.endpoint("digitz").submit(images[:1])
    wrong = deployed.submit(np.zeros((1, 3, 3, 1), np.uint8))
    with pytest.raises(InvalidArgumentError):
        wrong.result()
    assert wrong.status()["status"] == "failed"


def test_the_command_waits_in_the_queue(deployed, images, command, tmp_path):
    np.save(tmp_path / "digit.npy", images[:2])
    answer = json.loads(command("predict", "digits", str(tmp_path / "digit.npy"), "--queued"))
    np.testing.assert_allclose(answer, deployed.predict(images[:2]), rtol=1e-3, atol=1e-5)
