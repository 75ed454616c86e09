"""Requests that wait: taken, asked, answered once, told to their owners and to nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lepton_ai.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    LeptonError,
    ResourceExhaustedError,
    UnavailableError,
)
from lepton_ai.proto.v1 import options_pb2
from lepton_ai.proto.v1.request_pb2 import HttpContent, QueuedRequest
from lepton_ai.webhooks import verify
from lepton_gateway.queued.api import QueuedApi
from lepton_gateway.queued.dispatch import Dispatcher, pause_after
from lepton_gateway.queued.outgoing import check_url, is_public, post
from lepton_gateway.queued.requests import QueuedRequests
from lepton_gateway.queued.webhooks import Webhooks, secret_of
from lepton_gateway.table import RoutedDeployment, RouteTable
from lepton_runtime.auth import TokenSigner, TokenVerifier, make_keys
from lepton_runtime.clock import ManualClock, SystemClock
from lepton_runtime.memory_queues import MemoryQueues
from lepton_runtime.queues import Bounds

TABLE = RouteTable((RoutedDeployment("m", "READY"),))
WAIT_S = 600.0
BODY = b'{"inputs": []}'
HOOK = "https://example.com/hook"


class Queue:
    """One gateway's queue over twins, with a model that tests decide on."""

    def __init__(self, folder: Any, entries: int = 4) -> None:
        make_keys(folder, SystemClock().now())
        self.signing_key = (folder / "signing.pem").read_bytes()
        self.signer = TokenSigner(self.signing_key)
        self.clock = ManualClock(SystemClock().now())
        self.twins = MemoryQueues()
        self.bounds = Bounds(entries, 2**20, 600.0)
        self.outcomes: list[HttpContent | LeptonError] = []
        self.asked: list[QueuedRequest] = []
        self.posted: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int | LeptonError] = []
        self.verifier = TokenVerifier((folder / "jwks.json").read_text())
        self.revoked: set[str] = set()

    async def open(self) -> None:
        self.queue = await self.twins.work_queue("requests", self.bounds)
        self.hooks = await self.twins.work_queue("webhooks", self.bounds)
        self.ledger = await self.twins.ledger("requests", Bounds(100, 2**20, 1200.0))
        requests = QueuedRequests(self.queue, self.ledger, lambda: TABLE, self.clock, WAIT_S)

        async def other(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError(scope["path"])

        def secret(tenant: str) -> str:
            return secret_of(self.signing_key, tenant)

        self.api = QueuedApi(other, requests, self.verifier, secret, self.queue.most_bytes)
        self.dispatcher = Dispatcher(
            self.queue,
            self.ledger,
            self.hooks,
            self._ask,
            revoked=self.revoked.__contains__,
            clock=self.clock,
            wait_s=WAIT_S,
        )
        self.webhooks = Webhooks(self.hooks, self.ledger, self._post, self.signing_key, self.clock)

    async def _ask(self, request: QueuedRequest) -> HttpContent:
        self.asked.append(request)
        outcome = self.outcomes.pop(0) if self.outcomes else HttpContent(body=b'{"outputs": [1]}')
        if isinstance(outcome, LeptonError):
            raise outcome
        return outcome

    async def _post(self, url: str, headers: Any, body: bytes) -> int:
        self.posted.append((url, dict(headers), body))
        status = self.statuses.pop(0) if self.statuses else 200
        if isinstance(status, LeptonError):
            raise status
        return status

    async def call(
        self, method: str, path: str, body: bytes = b"", tenant: str = "a", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        role = options_pb2.ROLE_DEVELOPER
        key = self.signer.mint(tenant, role, 600, SystemClock().now()).token
        named = {"authorization": f"Bearer {key}"} | headers
        sent: list[dict[str, Any]] = []
        messages = [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            return await asyncio.get_running_loop().create_future()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        raw = [(n.replace("_", "-").encode(), v.encode()) for n, v in named.items()]
        path, _, query = path.partition("?")
        scope = {"path": path, "method": method, "headers": raw, "query_string": query.encode()}
        await self.api(scope, receive, send)
        answered = {n.decode(): v.decode() for n, v in sent[0]["headers"]}
        return sent[0]["status"], answered, b"".join(part["body"] for part in sent[1:])

    async def submit(self, **headers: str) -> str:
        status, answered, body = await self.call(
            "POST", "/v2/models/m/infer-async", BODY, **headers
        )
        assert status == 202, body
        id_ = json.loads(body)["id"]
        assert answered["location"] == f"/v2/requests/{id_}"
        return id_

    async def shown(self, id_: str) -> Any:
        status, _, body = await self.call("GET", f"/v2/requests/{id_}")
        assert status == 200, body
        return json.loads(body)

    async def work(self, *runners: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let runners work until nothing is left."""
        tasks = [asyncio.create_task(run()) for run in runners]
        for _ in range(200):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def played(tmp_path):
    """Plays a scenario with a queue of its own."""

    def play(scenario: Callable[[Queue], Coroutine[Any, Any, None]], entries: int = 4) -> None:
        async def run() -> None:
            queue = Queue(tmp_path, entries)
            await queue.open()
            async with asyncio.timeout(10):
                await scenario(queue)

        asyncio.run(run())

    return play


def test_a_request_is_taken_asked_and_answered(played):
    async def scenario(queue: Queue) -> None:
        id_ = await queue.submit(content_type="application/json")
        assert (await queue.shown(id_))["status"] == "queued"
        status, headers, _ = await queue.call("GET", f"/v2/requests/{id_}/result")
        assert (status, headers["retry-after"]) == (202, "1")
        await queue.work(queue.dispatcher.run)
        asked = queue.asked[0]
        assert (asked.path, asked.content.body) == ("/v2/models/m/infer", BODY)
        shown = await queue.shown(id_)
        assert (shown["status"], shown["answer"]) == ("succeeded", {"outputs": [1]})
        status, _, body = await queue.call("GET", f"/v2/requests/{id_}/result")
        assert (status, body) == (200, b'{"outputs": [1]}')
        assert len(queue.queue) == 0

    played(scenario)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v2/models/m:infer-async", "/v2/models/m/infer"),
        ("/v2/models/m/versions/3/infer-async", "/v2/models/m/versions/3/infer"),
    ],
)
def test_both_spellings_and_versions_are_taken(played, path, asked):
    async def scenario(queue: Queue) -> None:
        assert (await queue.call("POST", path, BODY))[0] == 202
        await queue.work(queue.dispatcher.run)
        assert queue.asked[0].path == asked

    played(scenario)


def test_binary_answers_come_as_they_are(played):
    async def scenario(queue: Queue) -> None:
        length = "inference-header-content-length"
        id_ = await queue.submit(**{length: "14"})
        queue.outcomes = [HttpContent(body=b"{}\x00\x01", json_length="2")]
        await queue.work(queue.dispatcher.run)
        assert queue.asked[0].content.json_length == "14"
        assert "answer" not in await queue.shown(id_)
        status, headers, body = await queue.call("GET", f"/v2/requests/{id_}/result")
        assert (status, headers[length], body) == (200, "2", b"{}\x00\x01")

    played(scenario)


def test_a_taker_that_dies_costs_no_answer_and_makes_none_twice(played):
    async def scenario(queue: Queue) -> None:
        ids = [await queue.submit(lepton_webhook=HOOK) for _ in range(3)]
        # A taker dies while it has them, another after it has answered but before it said so.
        stuck = asyncio.create_task(anext(queue.queue.taken()))
        await stuck
        queue.queue.lose_takers()
        forget, queue.queue.forget = queue.queue.forget, lambda key: None  # type: ignore[method-assign]
        queue.outcomes = [HttpContent(body=b'{"n": %d}' % n) for n in range(20)]
        await queue.work(queue.dispatcher.run)
        first = [(await queue.shown(id_))["answer"] for id_ in ids]
        queue.queue.forget = forget  # type: ignore[method-assign]
        queue.queue.lose_takers()
        await queue.work(queue.dispatcher.run, queue.webhooks.run)
        assert [(await queue.shown(id_))["answer"] for id_ in ids] == first
        assert len(queue.queue) == 0
        assert sorted(headers["webhook-id"] for _, headers, _ in queue.posted) == sorted(ids)

    played(scenario)


@pytest.mark.parametrize(
    ("error", "tries", "pause_s"),
    [
        (UnavailableError("x"), 1, 0.2),
        (ResourceExhaustedError("x"), 5, 3.2),
        (UnavailableError("x"), 19, 30.0),
        (UnavailableError("x"), 20, None),
        (DeadlineExceededError("x"), 2, 0.4),
        (DeadlineExceededError("x"), 3, None),
        (InvalidArgumentError("x"), 1, None),
        (InternalError("x"), 1, None),
    ],
)
def test_only_what_may_pass_is_tried_again(error, tries, pause_s):
    assert pause_after(error, tries) == pause_s


def test_failures_are_tried_again_and_end_with_their_reason(played):
    async def scenario(queue: Queue) -> None:
        id_ = await queue.submit()
        queue.outcomes = [UnavailableError("no replica"), UnavailableError("no replica")]
        await queue.work(queue.dispatcher.run)
        assert (await queue.shown(id_))["status"] == "succeeded"
        assert queue.queue.pauses_s == [0.2, 0.4]
        broken = await queue.submit()
        queue.outcomes = [UnavailableError("no replica") for _ in range(30)]
        await queue.work(queue.dispatcher.run)
        assert len(queue.queue.pauses_s) == 2 + 19
        shown = await queue.shown(broken)
        assert (shown["status"], shown["error"]) == ("failed", "no replica")
        status, _, body = await queue.call("GET", f"/v2/requests/{broken}/result")
        assert (status, json.loads(body)) == (503, {"error": "no replica"})

    played(scenario)


def test_a_revoked_key_and_a_late_request_are_refused(played):
    async def scenario(queue: Queue) -> None:
        id_ = await queue.submit()
        record = await queue.ledger.get(f"{id_}.request")
        assert record is not None
        queue.revoked.add(QueuedRequest.FromString(record).key_id)
        late = await queue.submit()
        assert (await queue.shown(late))["status"] == "queued"
        await queue.work(queue.dispatcher.run)
        assert "revoked" in (await queue.shown(id_))["error"]
        forgotten = await queue.submit()
        await queue.clock.advance(WAIT_S + 1)
        # Also while nobody works: it is told as failed once its time is over.
        assert (await queue.shown(forgotten))["status"] == "failed"
        await queue.work(queue.dispatcher.run)
        assert "within 600 s" in (await queue.shown(forgotten))["error"]
        assert len(queue.asked) == 1

    played(scenario)


def test_tenants_see_only_their_own(played):
    async def scenario(queue: Queue) -> None:
        id_ = await queue.submit()
        for what in ("", "/result", "/events"):
            path = f"/v2/requests/{id_}{what}"
            assert (await queue.call("GET", path, tenant="b"))[0] == 404
            assert (await queue.call("GET", path, authorization="Bearer x"))[0] == 401
        key = {"idempotency_key": "k"}
        assert await queue.submit(**key) != await queue.submit(tenant="b", **key)

    played(scenario)


def test_an_idempotency_key_makes_one_request(played):
    async def scenario(queue: Queue) -> None:
        ids = {await queue.submit(idempotency_key="k") for _ in range(3)}
        await queue.work(queue.dispatcher.run)
        assert ids == {await queue.submit(idempotency_key="k")}
        await queue.work(queue.dispatcher.run)
        assert len(queue.asked) == 1
        status, _, body = await queue.call(
            "POST", "/v2/models/m/infer-async", b"{}", idempotency_key="k"
        )
        assert (status, "another" in json.loads(body)["error"]) == (409, True)

    played(scenario)


def test_what_cannot_be_taken_is_refused_at_once(played):
    async def scenario(queue: Queue) -> None:
        path = "/v2/models/m/infer-async"
        assert (await queue.call("POST", "/v2/models/none/infer-async", BODY))[0] == 404
        assert (await queue.call("GET", path))[0] == 501
        assert (await queue.call("POST", path, bytes(queue.queue.most_bytes + 1)))[0] == 400
        assert (await queue.call("POST", path, BODY, lepton_webhook="ftp://x/"))[0] == 400
        assert (await queue.call("POST", path, BODY, idempotency_key="k" * 300))[0] == 400
        assert (await queue.call("GET", f"/v2/requests/{'0' * 32}"))[0] == 404
        for _ in range(4):
            await queue.submit()
        status, headers, body = await queue.call("POST", path, BODY)
        assert (status, headers["retry-after"]) == (429, "5")
        assert "full" in json.loads(body)["error"]

    played(scenario)


def test_events_tell_of_waiting_and_of_the_end(played):
    async def scenario(queue: Queue) -> None:
        id_ = await queue.submit()
        following = asyncio.create_task(queue.call("GET", f"/v2/requests/{id_}/events"))
        await asyncio.sleep(0)
        await queue.work(queue.dispatcher.run)
        status, headers, body = await following
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        events = [line for line in body.decode().splitlines() if line.startswith("event")]
        assert events == ["event: queued", "event: succeeded"]
        assert json.loads(body.decode().strip().rpartition("data: ")[2])["answer"]

    played(scenario)


def test_a_webhook_is_signed_and_tried_again(played):
    async def scenario(queue: Queue) -> None:
        id_ = await queue.submit(lepton_webhook=HOOK)
        queue.statuses = [503, UnavailableError("down"), 200]
        await queue.work(queue.dispatcher.run, queue.webhooks.run)
        assert queue.hooks.pauses_s == [1.0, 2.0]
        secret = json.loads((await queue.call("GET", "/v2/requests/webhook-secret"))[2])["secret"]
        for url, headers, body in queue.posted:
            assert url == HOOK
            assert verify(secret, headers, body, queue.clock.now()) == id_
            assert json.loads(body)["answer"] == {"outputs": [1]}
        assert (await queue.shown(id_))["webhook"] == "delivered"
        assert len(queue.posted) == 3

    played(scenario)


def test_a_webhook_that_nobody_takes_is_given_up_and_says_why(played):
    async def scenario(queue: Queue) -> None:
        id_ = await queue.submit(lepton_webhook=HOOK)
        queue.statuses = [500] * 20
        await queue.work(queue.dispatcher.run, queue.webhooks.run)
        assert len(queue.posted) == 8
        assert (await queue.shown(id_))["webhook"] == "failed: it was answered with status 500"
        private = await queue.submit(lepton_webhook="http://127.0.0.1/")
        queue.statuses = [InvalidArgumentError("private")]
        await queue.work(queue.dispatcher.run, queue.webhooks.run)
        assert (await queue.shown(private))["webhook"] == "failed: private"

    played(scenario)


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "https://", "http://user@host/", "http://h:99999/", "//host/x"),
        *("http://h/a b", "http://h/\r\nx: y", "gopher://h/", f"http://h/{'x' * 3000}"),
    ],
)
def test_what_is_no_address_for_a_webhook_is_refused(url):
    with pytest.raises(InvalidArgumentError):
        check_url(url)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0"),
        *("::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
        *("224.0.0.1", "100.64.0.1", "255.255.255.255"),
    ],
)
def test_private_addresses_are_known(address):
    assert not is_public(address)


def test_public_addresses_are_known():
    assert is_public("93.184.215.14")
    assert is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")


def test_posting_reaches_no_private_address_unless_it_may():
    async def scenario() -> None:
        received: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2))
            writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://localhost:{server.sockets[0].getsockname()[1]}/a?b"
            with pytest.raises(InvalidArgumentError, match="private"):
                await post(url, {}, b"{}", private=False, timeout_s=5)
            assert received == []
            assert await post(url, {"x": "y"}, b"{}", private=True, timeout_s=5) == 302
        assert received[0].startswith(b"POST /a?b HTTP/1.1\r\nhost: localhost:")
        assert received[0].endswith(b"x: y\r\n\r\n{}")
        with pytest.raises(UnavailableError):
            await post(url, {}, b"{}", private=True, timeout_s=5)

    asyncio.run(scenario())
