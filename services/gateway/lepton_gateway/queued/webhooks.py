"""Sends outcomes to those who asked for that, signed, and again until they have been taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping

import orjson
import structlog

from lepton_ai.errors import InvalidArgumentError, LeptonError
from lepton_ai.proto.v1.request_pb2 import QueuedAnswer
from lepton_ai.webhooks import sign
from lepton_gateway.queued import records
from lepton_gateway.queued.consuming import consume
from lepton_runtime.clock import Clock
from lepton_runtime.queues import Delivery, Ledger, WorkQueue

__all__ = ["Post", "Webhooks", "secret_of"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.webhooks")
# About two minutes with their pauses.
_TRIES = 8
_LONGEST_PAUSE_S = 60.0
_TAKEN = range(200, 300)
_JSON = "application/json"

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[int]]
"""Posts a body with headers to a URL, and answers the status."""


def secret_of(signing_key: bytes, tenant: str) -> str:
    """What the webhooks of a tenant are signed with: always the same, and kept nowhere.

    Args:
        signing_key: The cluster's private key.
        tenant: Whose webhooks.
    """
    key = hmac.new(signing_key, f"webhooks of {tenant}".encode(), hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(key).decode()}"


class Webhooks:
    """Works off the outcomes that are to be sent.

    Args:
        queue: Ids of the requests.
        ledger: Where answers are kept, and what became of webhooks.
        post: Sends.
        signing_key: The cluster's private key.
        clock: Time.
    """

    def __init__(
        self, queue: WorkQueue, ledger: Ledger, post: Post, signing_key: bytes, clock: Clock
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._post = post
        self._signing_key = signing_key
        self._clock = clock

    async def run(self) -> None:
        """Send one outcome after the other until cancelled."""
        await consume(self._queue, self._handle)

    async def _handle(self, delivery: Delivery) -> None:
        id_ = delivery.payload.decode()
        key = records.webhook_key(id_)
        value = await self._ledger.get(records.answer_key(id_))
        if value is not None and await self._ledger.get(key) is None:
            outcome = await self._sent(QueuedAnswer.FromString(value), delivery.tries)
            if not outcome:
                await delivery.again(min(2.0 ** (delivery.tries - 1), _LONGEST_PAUSE_S))
                return
            await self._ledger.create(key, outcome.encode())
        await delivery.done()

    async def _sent(self, answer: QueuedAnswer, tries: int) -> str:
        """What became of it; empty: to be tried again."""
        request = answer.request
        body = orjson.dumps(records.document(request, answer))
        secret = secret_of(self._signing_key, request.tenant)
        headers = {"content-type": _JSON} | sign(secret, request.id, body, self._clock.now())
        try:
            status = await self._post(request.webhook_url, headers, body)
        except InvalidArgumentError as error:
            return f"failed: {error}"
        except LeptonError as error:
            reason = str(error)
        else:
            if status in _TAKEN:
                return "delivered"
            reason = f"it was answered with status {status}"
        _log.warning("webhook_failed", request=request.id, tries=tries, reason=reason)
        return f"failed: {reason}" if tries >= _TRIES else ""
