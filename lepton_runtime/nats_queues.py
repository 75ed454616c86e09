"""Work queues and ledgers on NATS JetStream, in files: what was taken survives a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError as NothingFoundError

from lepton_ai.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError
from lepton_runtime.cancellation import raise_if_cancelled
from lepton_runtime.queues import Bounds, Delivery, Ledger, WorkQueue

__all__ = ["NatsQueues"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.queues")
_FAILURES = (NatsError, JetStreamError, TimeoutError, OSError)
_DEADLINE_S = 2.0
_FETCH_S = 5.0  # short, because a fetch can go silent after a broker's restart
_RETRY_S = 0.5
# Takers tell every two seconds that they are alive.
_SILENT_S = 6.0
_SAME_WORK_S = 600.0
_MOST_TAKEN = 4096
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 2.0
_TAKERS = "takers"
_HEADERS_BYTES = 1024
_OTHER_CONFIGURATION = 10058
_THERE_ALREADY = (10071, 10164)


class NatsQueues:
    """Makes queues and ledgers.

    Args:
        client: A connection, which stays the caller's.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def work_queue(self, name: str, bounds: Bounds) -> WorkQueue:
        """The queue of that name."""
        config = _config(f"LEPTON_QUEUE_{name.upper()}", f"lepton.v1.queues.{name}", bounds)
        config.retention = RetentionPolicy.WORK_QUEUE
        config.duplicate_window = min(_SAME_WORK_S, bounds.age_s)
        stream = _Stream(self._client, config)
        await stream.ensure()
        return _NatsWorkQueue(stream)

    async def ledger(self, name: str, bounds: Bounds) -> Ledger:
        """The ledger of that name."""
        config = _config(f"LEPTON_LEDGER_{name.upper()}", f"lepton.v1.ledgers.{name}", bounds)
        stream = _Stream(self._client, config)
        await stream.ensure()
        return _NatsLedger(stream)


def _config(name: str, subject: str, bounds: Bounds) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[f"{subject}.>"],
        max_age=bounds.age_s,
        max_bytes=bounds.size_bytes,
        max_msgs=bounds.entries,
        # Full is full: what is new is refused, and what was taken stays.
        discard=DiscardPolicy.NEW,
    )


class _Stream:
    """A stream that stores or refuses, never loses in silence, and is made again when lost."""

    def __init__(self, client: Client, config: StreamConfig) -> None:
        self.context: JetStreamContext = client.jetstream(timeout=_DEADLINE_S)
        self.client = client
        self.name = config.name or ""
        self._config = config

    @property
    def most_bytes(self) -> int:
        return self.client.max_payload - _HEADERS_BYTES

    def subject(self, key: str) -> str:
        return f"{(self._config.subjects or [''])[0].removesuffix('>')}{key}"

    async def ensure(self) -> None:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await self._made()
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def store(self, key: str, payload: bytes, headers: Mapping[str, str]) -> None:
        if len(payload) > self.most_bytes:
            raise InvalidArgumentError(
                f"{len(payload)} bytes are too many for the queue",
                hint=f"at most {self.most_bytes}: send less at once, or ask without the queue",
            )
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await self._published(self.subject(key), payload, dict(headers))
        except APIError as error:
            if error.err_code in _THERE_ALREADY:
                raise _ThereAlreadyError from None
            if "maximum" in (error.description or ""):
                raise _full() from None
            raise _unavailable(error) from error
        except _FAILURES as error:
            raise _unavailable(error) from error
        raise_if_cancelled()

    async def _published(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        try:
            await self.context.publish(subject, payload, headers=headers)
        except NoStreamResponseError:
            await self._made()
            await self.context.publish(subject, payload, headers=headers)

    async def _made(self) -> None:
        try:
            await self.context.add_stream(self._config)
        except APIError as error:
            if error.err_code != _OTHER_CONFIGURATION:
                raise
            await self.context.update_stream(self._config)


class _ThereAlreadyError(Exception):
    """A message under this key is stored."""


class _NatsWorkQueue:
    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    @property
    def most_bytes(self) -> int:
        return self._stream.most_bytes

    async def put(self, key: str, payload: bytes) -> None:
        await self._stream.store(key, payload, {"Nats-Msg-Id": key})

    async def taken(self) -> AsyncGenerator[Delivery]:
        while True:
            raise_if_cancelled()
            try:
                subscription = await self._subscribe()
                try:
                    async for message in _fetched(subscription):
                        yield _NatsDelivery(message)
                finally:
                    with contextlib.suppress(*_FAILURES):  # the broker drops it after a while
                        await subscription.unsubscribe()
            except NothingFoundError:
                # The broker lost the stream or the consumer.
                with contextlib.suppress(UnavailableError):
                    await self._stream.ensure()
            except _FAILURES as error:
                _log.warning("queue broken, trying again", reason=repr(error))
            await asyncio.sleep(_RETRY_S)

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        config = ConsumerConfig(
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_SILENT_S,
            # How often is the taker's business: the broker would drop the work without a word.
            max_deliver=-1,
            max_ack_pending=_MOST_TAKEN,
        )
        return await self._stream.context.pull_subscribe(
            self._stream.subject(">"), durable=_TAKERS, stream=self._stream.name, config=config
        )


async def _fetched(subscription: JetStreamContext.PullSubscription) -> AsyncGenerator[Msg]:
    while True:
        raise_if_cancelled()
        try:
            batch = await subscription.fetch(1, timeout=_FETCH_S)
        except TimeoutError:
            # Silence, or a consumer that a restart took along: asking tells which.
            await subscription.consumer_info()
            continue
        for message in batch:
            yield message


class _NatsDelivery:
    def __init__(self, message: Msg) -> None:
        self._message = message
        self.payload = message.data
        self.tries = message.metadata.num_delivered

    async def working(self) -> None:
        with contextlib.suppress(*_FAILURES):  # then another may begin it too
            await self._message.in_progress()

    async def done(self) -> None:
        try:
            await self._message.ack_sync(timeout=_DEADLINE_S)
        except _FAILURES as error:
            _log.warning("work not ticked off: it comes again", reason=repr(error))
        raise_if_cancelled()

    async def again(self, pause_s: float) -> None:
        with contextlib.suppress(*_FAILURES):  # then it comes again by its silence
            await self._message.nak(delay=pause_s)


class _NatsLedger:
    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    async def create(self, key: str, value: bytes) -> bool:
        try:
            await self._stream.store(key, value, {"Nats-Expected-Last-Subject-Sequence": "0"})
        except _ThereAlreadyError:
            return False
        return True

    async def get(self, key: str) -> bytes | None:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                message = await self._stream.context.get_last_msg(
                    self._stream.name, self._stream.subject(key)
                )
        except NothingFoundError:
            return None
        except _FAILURES as error:
            raise _unavailable(error) from error
        raise_if_cancelled()
        return message.data or b""

    async def wait(self, key: str, timeout_s: float) -> bytes | None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        pause_s = _FIRST_LOOK_S
        try:
            subscription = await self._stream.client.subscribe(self._stream.subject(key))
            try:
                while True:
                    found = await self.get(key)
                    left_s = deadline_s - loop.time()
                    if found is not None or left_s <= 0:
                        return found
                    # A message passes subscribers before it is stored, so one may be missed.
                    with contextlib.suppress(TimeoutError):
                        await subscription.next_msg(timeout=min(pause_s, left_s))
                    raise_if_cancelled()
                    pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
            finally:
                with contextlib.suppress(*_FAILURES):
                    await subscription.unsubscribe()
        except _FAILURES as error:
            raise _unavailable(error) from error


def _full() -> ResourceExhaustedError:
    error = ResourceExhaustedError("the queue is full", hint="try again later")
    error.retry_after_s = 5.0
    return error


def _unavailable(error: Exception) -> UnavailableError:
    reason = error.description if isinstance(error, APIError) else None
    return UnavailableError(
        "the queue cannot be reached now", hint=f"try again ({reason or type(error).__name__})"
    )
