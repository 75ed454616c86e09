"""Takes requests into the queue, and tells their owners what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lepton_ai.errors import ConflictError, NotFoundError, UnavailableError
from lepton_ai.proto.v1.request_pb2 import HttpContent, QueuedAnswer, QueuedRequest
from lepton_gateway.protocol import why_not
from lepton_gateway.queued import records
from lepton_gateway.queued.outgoing import check_url
from lepton_gateway.table import RouteTable
from lepton_runtime.auth import Principal
from lepton_runtime.clock import Clock
from lepton_runtime.queues import Ledger, WorkQueue

__all__ = ["QueuedRequests", "Submission"]


@dataclass(frozen=True)
class Submission:
    """What a client hands in.

    Attributes:
        model: The deployment to ask.
        path: Of the same request without a queue.
        content: The body, and how to read it.
        webhook_url: Where to send the outcome; empty for nowhere.
        idempotency_key: The same one is the same request; empty for a new request.
    """

    model: str
    path: str
    content: HttpContent
    webhook_url: str = ""
    idempotency_key: str = ""


class QueuedRequests:
    """Requests of all tenants, each seen by its own alone.

    Args:
        queue: Where they wait.
        ledger: Where it is kept that they were taken, and what came of them.
        table: Answers the routes of the moment.
        clock: Time.
        wait_s: How long a request may wait for its answer.
    """

    def __init__(
        self,
        queue: WorkQueue,
        ledger: Ledger,
        table: Callable[[], RouteTable],
        clock: Clock,
        wait_s: float,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._table = table
        self._clock = clock
        self._wait_s = wait_s

    async def submit(self, caller: Principal, submission: Submission) -> QueuedRequest:
        """Take a request; once this returns it is answered, whatever dies.

        Raises:
            NotFoundError: The model is not deployed.
            InvalidArgumentError: It is too large to wait, or the webhook's address is none.
            ConflictError: The idempotency key was used for another request.
            ResourceExhaustedError: The queue is full.
            UnavailableError: The queue cannot be reached now.
        """
        self._check(submission)
        request = self._request(caller, submission)
        record = QueuedRequest()
        record.CopyFrom(request)
        record.ClearField("content")
        key = records.request_key(request.id)
        if not await self._ledger.create(key, record.SerializeToString()):
            await self._check_same(request)
        # Also for a repetition: the gateway that took it first may have died right before this.
        await self._queue.put(request.id, request.SerializeToString())
        return record

    async def find(self, caller: Principal, id_: str) -> QueuedRequest:
        """A request of the caller's tenant.

        Raises:
            NotFoundError: There is none of this id.
        """
        value = await self._ledger.get(records.request_key(id_))
        if value is not None:
            request = QueuedRequest.FromString(value)
            if request.tenant == caller.tenant:
                return request
        raise NotFoundError(
            f"there is no request {id_!r}", hint="results are kept for a while only"
        )

    async def answer(self, request: QueuedRequest, wait_s: float = 0.0) -> QueuedAnswer | None:
        """What came of a request, or None while it waits; waits for it for `wait_s` seconds."""
        key = records.answer_key(request.id)
        value = await (self._ledger.wait(key, wait_s) if wait_s else self._ledger.get(key))
        if value is not None:
            return QueuedAnswer.FromString(value)
        return records.expired(request, self._clock.now(), self._wait_s)

    async def webhook(self, request: QueuedRequest) -> str:
        """What became of its webhook; empty while nothing is known."""
        value = request.webhook_url and await self._ledger.get(records.webhook_key(request.id))
        return value.decode() if isinstance(value, bytes) else ""

    def _check(self, submission: Submission) -> None:
        table = self._table()
        if all(found.name != submission.model for found in table.deployments):
            raise why_not(table, submission.model)
        if submission.webhook_url:
            check_url(submission.webhook_url)

    def _request(self, caller: Principal, submission: Submission) -> QueuedRequest:
        request = QueuedRequest(
            id=records.request_id(caller.tenant, submission.idempotency_key),
            tenant=caller.tenant,
            key_id=caller.key_id,
            model=submission.model,
            path=submission.path,
            webhook_url=submission.webhook_url,
            digest=records.digest_of(submission.path, submission.content),
            content=submission.content,
        )
        request.submitted_at.FromNanoseconds(int(self._clock.now() * 1e9))
        return request

    async def _check_same(self, request: QueuedRequest) -> None:
        value = await self._ledger.get(records.request_key(request.id))
        if value is None:
            raise UnavailableError("the request has just expired", hint="submit it again")
        if QueuedRequest.FromString(value).digest != request.digest:
            raise ConflictError(
                "the idempotency key was used for another request", hint="use a new one"
            )
