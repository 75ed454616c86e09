"""Asks what waits in the queue: each request is answered once, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lepton_ai.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    LeptonError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from lepton_ai.proto.v1.request_pb2 import HttpContent, QueuedAnswer, QueuedRequest
from lepton_gateway.queued import records
from lepton_gateway.queued.consuming import consume
from lepton_runtime.clock import Clock
from lepton_runtime.queues import Delivery, Ledger, WorkQueue

__all__ = ["Ask", "Dispatcher", "pause_after"]

_HEARTBEAT_S = 2.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
# About six minutes with their pauses. What ran out of time computed in vain: not as often.
_TRIES: dict[type[LeptonError], int] = {
    UnavailableError: 20,
    ResourceExhaustedError: 20,
    DeadlineExceededError: 3,
}

Ask = Callable[[QueuedRequest], Awaitable[HttpContent]]


def pause_after(error: LeptonError, tries: int) -> float | None:
    """Seconds until a request is tried again; None: the error is its answer.

    Args:
        error: What came of the last try.
        tries: How often it was handed out, this time included.
    """
    if tries >= _TRIES.get(type(error), 0):
        return None
    return min(_FIRST_PAUSE_S * 2 ** (tries - 1), _LONGEST_PAUSE_S)


class Dispatcher:
    """Works off the queue.

    Args:
        queue: Where requests wait.
        ledger: Where answers are kept.
        webhooks: Where those whose outcome is to be sent wait for that.
        ask: Asks the model, on behalf of the request's tenant.
        revoked: Whether a key was revoked.
        clock: Time.
        wait_s: How long a request may wait for its answer.
    """

    def __init__(
        self,
        queue: WorkQueue,
        ledger: Ledger,
        webhooks: WorkQueue,
        ask: Ask,
        *,
        revoked: Callable[[str], bool],
        clock: Clock,
        wait_s: float,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._webhooks = webhooks
        self._ask = ask
        self._revoked = revoked
        self._clock = clock
        self._wait_s = wait_s

    async def run(self) -> None:
        """Answer one request after the other until cancelled."""
        await consume(self._queue, self._handle)

    async def _handle(self, delivery: Delivery) -> None:
        request = QueuedRequest.FromString(delivery.payload)
        key = records.answer_key(request.id)
        if await self._ledger.get(key) is None:
            try:
                answer = await self._answer(request, delivery)
            except LeptonError as error:
                pause_s = pause_after(error, delivery.tries)
                if pause_s is not None:
                    await delivery.again(pause_s)
                    return
                answer = records.failed(request, error, self._clock.now())
            await self._store(key, answer)
        if request.webhook_url:
            await self._webhooks.put(request.id, request.id.encode())
        await delivery.done()

    async def _answer(self, request: QueuedRequest, delivery: Delivery) -> QueuedAnswer:
        late = records.expired(request, self._clock.now(), self._wait_s)
        if late is not None:
            return late
        if self._revoked(request.key_id):
            raise PermissionDeniedError("the key of the request was revoked")
        beating = asyncio.create_task(self._beat(delivery))
        try:
            content = await self._ask(request)
        finally:
            beating.cancel()
        answer = QueuedAnswer(request=request, status=200, content=content)
        answer.request.ClearField("content")
        answer.finished_at.FromNanoseconds(int(self._clock.now() * 1e9))
        return answer

    async def _store(self, key: str, answer: QueuedAnswer) -> None:
        try:
            await self._ledger.create(key, answer.SerializeToString())
        except InvalidArgumentError as error:
            small = records.failed(answer.request, error, self._clock.now())
            await self._ledger.create(key, small.SerializeToString())

    async def _beat(self, delivery: Delivery) -> None:
        while True:
            await self._clock.sleep(_HEARTBEAT_S)
            await delivery.working()
