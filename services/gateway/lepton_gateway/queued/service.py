"""The queue of one gateway: what it is made of, and its runners."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lepton_ai.http import HttpClient
from lepton_gateway.queued.api import QueuedApi
from lepton_gateway.queued.asking import Asking
from lepton_gateway.queued.dispatch import Dispatcher
from lepton_gateway.queued.outgoing import post
from lepton_gateway.queued.requests import QueuedRequests
from lepton_gateway.queued.webhooks import Webhooks, secret_of
from lepton_gateway.table import RouteTable
from lepton_runtime.auth import TokenSigner, TokenVerifier
from lepton_runtime.clock import Clock
from lepton_runtime.queues import Bounds, Ledger, Queues, WorkQueue

__all__ = ["Queueing", "QueueingLimits", "opened_queue"]

_POST_S = 10.0
# Facts outlive the requests they are about: each has up to three.
_FACTS = 3
# Of a message that holds an id, with what NATS adds.
_ID_BYTES = 512


@dataclass(frozen=True)
class QueueingLimits:
    """Bounds on what waits.

    Attributes:
        requests: How many wait at once.
        size_bytes: Of all that wait. Twice that is kept of requests and answers.
        wait_s: How long a request may wait; its answer is kept at least as long.
        at_once: Requests, and webhooks, that one gateway has under way.
        private_webhooks: Whether webhooks may go to loopback and private addresses.
    """

    requests: int = 10_000
    size_bytes: int = 256 * 1024 * 1024
    wait_s: float = 3600.0
    at_once: int = 16
    private_webhooks: bool = False


@dataclass(frozen=True)
class Queueing:
    """What the queue of a gateway stands on.

    Attributes:
        requests: Where they wait.
        webhooks: Outcomes that are to be sent.
        ledger: What was taken, and what came of it.
        verifier: Tells whose key it is.
        signing_key: The cluster's private key (PEM).
        limits: Bounds.
    """

    requests: WorkQueue
    webhooks: WorkQueue
    ledger: Ledger
    verifier: TokenVerifier
    signing_key: bytes
    limits: QueueingLimits

    def api(self, app: Any, table: Callable[[], RouteTable], clock: Clock) -> QueuedApi:
        """What answers clients; all else is left to `app`."""
        requests = QueuedRequests(self.requests, self.ledger, table, clock, self.limits.wait_s)
        secret = partial(secret_of, self.signing_key)
        return QueuedApi(app, requests, self.verifier, secret, self.requests.most_bytes)

    async def run(
        self, envoy: str, timeout_s: float, table: Callable[[], RouteTable], clock: Clock
    ) -> None:
        """Work off what waits until cancelled.

        Args:
            envoy: Where Envoy takes requests, as `HttpClient` names it.
            timeout_s: For one request.
            table: Answers the routes of the moment.
            clock: Time.
        """
        http = HttpClient(envoy, "", max_connections=self.limits.at_once)
        ask = Asking(http, TokenSigner(self.signing_key), clock, timeout_s).ask
        dispatcher = Dispatcher(
            self.requests,
            self.ledger,
            self.webhooks,
            ask,
            revoked=lambda key_id: key_id in table().revoked_keys,
            clock=clock,
            wait_s=self.limits.wait_s,
        )
        webhooks = Webhooks(self.webhooks, self.ledger, self._post(), self.signing_key, clock)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self.limits.at_once):
                    tasks.create_task(dispatcher.run())
                    tasks.create_task(webhooks.run())
        finally:
            http.close()

    def _post(self) -> Callable[[str, Mapping[str, str], bytes], Awaitable[int]]:
        return partial(post, private=self.limits.private_webhooks, timeout_s=_POST_S)


async def opened_queue(
    queues: Queues, verifier: TokenVerifier, signing_key: bytes, limits: QueueingLimits
) -> Queueing:
    """The queue that all gateways of a cluster share.

    Raises:
        UnavailableError: It cannot be reached.
    """
    waiting = Bounds(limits.requests, limits.size_bytes, limits.wait_s)
    outcomes = Bounds(limits.requests, limits.requests * _ID_BYTES, limits.wait_s)
    facts = Bounds(_FACTS * limits.requests, 2 * limits.size_bytes, 2 * limits.wait_s)
    return Queueing(
        requests=await queues.work_queue("requests", waiting),
        webhooks=await queues.work_queue("webhooks", outcomes),
        ledger=await queues.ledger("requests", facts),
        verifier=verifier,
        signing_key=signing_key,
        limits=limits,
    )
