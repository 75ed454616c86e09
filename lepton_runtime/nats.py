"""The bus on NATS JetStream. It reconnects for ever and makes its streams again when lost."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence

import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoServersError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy, DiscardPolicy, StreamConfig
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NoStreamResponseError
from nats.js.errors import NotFoundError as StreamNotFoundError

from lepton_ai.errors import UnavailableError
from lepton_ai.rpc import TlsFiles
from lepton_runtime.bus import EVENTS, JOBS, Message
from lepton_runtime.cancellation import raise_if_cancelled
from lepton_runtime.nats_queues import NatsQueues
from lepton_runtime.queues import Queues

__all__ = ["NatsBus"]

_log = structlog.get_logger("lepton.nats")

_DEADLINE_S = 2.0
_CONNECT_S = 10.0
_FETCH_S = 1.0  # short, because a fetch can go silent after a broker's restart
_BATCH = 256
_RETRY_S = 0.5
_UNHEARD = 1_000  # messages that wait for a listener; further ones are dropped
_DAY_S = 24 * 3600
_STREAMS = (
    StreamConfig(
        name="LEPTON_EVENTS",
        subjects=[f"{EVENTS}.>"],
        max_age=_DAY_S,
        max_bytes=256 * 1024 * 1024,
        discard=DiscardPolicy.OLD,
    ),
    StreamConfig(
        name="LEPTON_JOBS",
        subjects=[f"{JOBS}.>"],
        max_age=7 * _DAY_S,
        max_bytes=1024 * 1024 * 1024,
        max_msgs_per_subject=100_000,
        discard=DiscardPolicy.OLD,
    ),
)
_FAILURES = (NatsError, JetStreamError, TimeoutError, OSError)


class NatsBus:
    """The real bus. Open one with `connect`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stream: JetStreamContext = client.jetstream(timeout=_DEADLINE_S)
        self._closed = asyncio.Event()

    @property
    def queues(self) -> Queues:
        """Work queues and ledgers over the same connection."""
        return NatsQueues(self._client)

    @classmethod
    async def connect(cls, servers: Sequence[str], tls: TlsFiles | None = None) -> NatsBus:
        """Connect and make sure that the streams exist.

        Raises:
            UnavailableError: No server answers within ten seconds.
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                client = await nats.connect(
                    servers=list(servers),
                    tls=_tls_context(tls) if tls else None,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,
                    ping_interval=3,
                    max_outstanding_pings=2,
                    error_cb=_log_error,
                    disconnected_cb=_log_disconnected,
                    reconnected_cb=_log_reconnected,
                )
                bus = cls(client)
                await bus.ensure_streams()
                return bus
        except (*_FAILURES, NoServersError) as error:
            raise UnavailableError(
                "NATS cannot be reached", hint=f"is it running? ({type(error).__name__})"
            ) from error

    async def ensure_streams(self) -> None:
        """Make the streams that are missing."""
        for stream in _STREAMS:
            await self._stream.add_stream(stream)

    async def publish(self, subject: str, payload: bytes, *, message_id: str | None = None) -> bool:
        """Publish with an acknowledgement; a failure is logged and the message lost."""
        headers = {"Nats-Msg-Id": message_id} if message_id else None
        taken = False
        try:
            async with asyncio.timeout(_DEADLINE_S):
                try:
                    await self._stream.publish(subject, payload, headers=headers)
                except NoStreamResponseError:
                    await self.ensure_streams()
                    await self._stream.publish(subject, payload, headers=headers)
            taken = True
        except _FAILURES as error:
            _log.warning("event lost", subject=subject, reason=repr(error))
        raise_if_cancelled()
        return taken

    async def subscribe_new(self, subject: str) -> AsyncIterator[Message]:
        """Messages published from now on."""
        async for message in self._follow(subject, None):
            yield message

    async def subscribe_all(self, subject: str, after_sequence: int = 0) -> AsyncIterator[Message]:
        """Kept messages after a sequence, then new ones."""
        async for message in self._follow(subject, after_sequence):
            yield message

    async def kept(self, subject: str, after_sequence: int = 0) -> list[Message]:
        """Kept messages after a sequence.

        Raises:
            UnavailableError: NATS does not answer.
        """
        found: list[Message] = []
        try:
            subscription = await self._subscribe(subject, after_sequence)
            try:
                pending = (await subscription.consumer_info()).num_pending or 0
                while len(found) < pending:
                    found += [
                        _message(m) for m in await subscription.fetch(_BATCH, timeout=_FETCH_S)
                    ]
            finally:
                await _unsubscribe(subscription)
        except _FAILURES as error:
            raise UnavailableError("the log cannot be read now", hint="try again") from error
        return found

    async def say(self, subject: str, payload: bytes) -> None:
        """Publish to whoever listens now; lost when the broker is away."""
        if not self._client.is_connected:
            return  # what is said late is no news
        try:
            await self._client.publish(subject, payload)
        except _FAILURES as error:
            _log.warning("news lost", subject=subject, reason=repr(error))

    async def listen(self, subject: str) -> AsyncIterator[Message]:
        """What is said from now on, over any number of the broker's restarts."""
        subscription = await self._client.subscribe(subject, pending_msgs_limit=_UNHEARD)
        try:
            async for raw in subscription.messages:
                yield Message(raw.subject, raw.data, 0)
        finally:
            with contextlib.suppress(*_FAILURES):  # the connection is gone
                await subscription.unsubscribe()

    async def close(self) -> None:
        """End every subscription and the connection."""
        self._closed.set()
        with contextlib.suppress(*_FAILURES):  # going anyway
            async with asyncio.timeout(_DEADLINE_S):
                await self._client.close()

    async def _follow(self, subject: str, after: int | None) -> AsyncIterator[Message]:
        """Messages after a sequence, or from now on, over any number of broken subscriptions."""
        while not self._closed.is_set():
            try:
                if after is None:
                    after = await self._last_sequence(subject)
                subscription = await self._subscribe(subject, after)
                try:
                    async for message in self._fetched(subscription):
                        after = message.sequence
                        yield message
                finally:
                    await _unsubscribe(subscription)
            except StreamNotFoundError:
                # The broker restarted: consumers live in its memory, streams on its disk.
                after = await self._recovered(subject, after or 0)
            except (*_FAILURES, UnavailableError) as error:
                _log.warning("subscription broken, trying again", reason=repr(error))
            await asyncio.sleep(_RETRY_S)

    async def _recovered(self, subject: str, after: int) -> int:
        """Where to go on: at the same place, or at the start of a stream that was lost."""
        try:
            await self.ensure_streams()
            last = await self._last_sequence(subject)
        except (*_FAILURES, UnavailableError) as error:
            _log.warning("stream not there yet", subject=subject, reason=repr(error))
            return after
        return after if last >= after else 0

    async def _fetched(
        self, subscription: JetStreamContext.PullSubscription
    ) -> AsyncIterator[Message]:
        while not self._closed.is_set():
            raise_if_cancelled()
            try:
                batch = await subscription.fetch(_BATCH, timeout=_FETCH_S)
            except TimeoutError:
                # Silence, or a consumer that a restart took along: asking tells which.
                await subscription.consumer_info()
                continue
            for raw in batch:
                yield _message(raw)

    async def _subscribe(self, subject: str, after: int) -> JetStreamContext.PullSubscription:
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy="none",  # pyright: ignore[reportArgumentType]
            inactive_threshold=30,
            mem_storage=True,
        )
        return await self._stream.pull_subscribe(subject, stream=_stream_of(subject), config=config)

    async def _last_sequence(self, subject: str) -> int:
        try:
            return (await self._stream.stream_info(_stream_of(subject))).state.last_seq
        except _FAILURES as error:
            raise UnavailableError("NATS does not answer", hint="try again") from error


def _stream_of(subject: str) -> str:
    return "LEPTON_EVENTS" if subject.startswith(EVENTS) else "LEPTON_JOBS"


def _message(raw: Msg) -> Message:
    return Message(raw.subject, raw.data, raw.metadata.sequence.stream)


async def _unsubscribe(subscription: JetStreamContext.PullSubscription) -> None:
    with contextlib.suppress(*_FAILURES):  # the broker drops it by itself after a while
        await subscription.unsubscribe()


def _tls_context(tls: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.authority))
    context.load_cert_chain(tls.certificate, tls.key)
    return context


async def _log_error(error: Exception) -> None:
    _log.warning("nats error", reason=repr(error))


async def _log_disconnected() -> None:
    _log.warning("nats disconnected, reconnecting")


async def _log_reconnected() -> None:
    _log.info("nats reconnected")
