"""A deployed model that answers: arrays go in, arrays come out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray

from lepton_ai.cluster.inference import InferenceClient, encoded
from lepton_ai.cluster.queued import AsyncQueuedRequest
from lepton_ai.cluster.retrying import retried
from lepton_ai.errors import (
    DataError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from lepton_ai.oip import Tensor, as_tensor, batches_of

__all__ = ["AsyncEndpoint"]

_TIMEOUT_S = 60.0
# Of one call's requests; more would only wait at the server.
_AT_ONCE = 8


class _Form(NamedTuple):
    """What a model takes: its input, and how many rows in a request (0: any number)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    most_rows: int


class AsyncEndpoint:
    """A deployment's name on a cluster. Made by `AsyncCluster.endpoint` and `.deploy`."""

    def __init__(self, name: str, client: InferenceClient) -> None:
        self.name = name
        self._client = client
        self._path = f"/v2/models/{quote(name, safe='')}"
        self._known: _Form | None = None

    async def predict(self, x: Any, *, timeout_s: float = _TIMEOUT_S) -> NDArray[Any]:
        """What the model makes of raw input.

        Requests travel as binary REST, or by gRPC while all connections are busy. What was
        refused before any work, or broke off on the way, is sent again, when the server says so
        or after growing pauses: inference changes nothing.

        Args:
            x: Rows as the model takes them raw; an array or what becomes one. More rows than the
                model takes in a request (64, unless it was told otherwise) travel in several, at
                most eight at once; their answers keep the order of the rows.
            timeout_s: For the whole call, in seconds. The server is told, and computes nothing
                that would come too late.

        Returns:
            The model's first output, first axis the rows.

        Raises:
            DataError: There are no rows, or they cannot be made the model's input type.
            InvalidArgumentError: The shape is wrong; the server says what it takes.
            NotFoundError: Nothing of this name is deployed.
            UnavailableError: No replica answers.
            ResourceExhaustedError: The model has more work than it can do.
            DeadlineExceededError: There was no answer in time.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._predicted(x, deadline_s)
        except InvalidArgumentError:
            self._known = None  # another version may take something else
            raise
        except DeadlineExceededError:
            raise
        except TimeoutError:
            raise DeadlineExceededError(
                f"{self.name!r} did not answer within {timeout_s:g} s",
                hint="give fewer rows or more time, or deploy more replicas",
            ) from None

    async def submit(
        self,
        x: Any,
        *,
        webhook: str = "",
        idempotency_key: str = "",
        timeout_s: float = _TIMEOUT_S,
    ) -> AsyncQueuedRequest:
        """Put raw input into the cluster's queue, without waiting for what the model makes of it.

        It is answered once, whatever dies meanwhile.

        Args:
            x: Rows, as for `predict`, but no more than the model takes in one request.
            webhook: URL that the outcome is posted to, signed: see `lepton_ai.webhooks`.
            idempotency_key: Submitting again with the same key is the same request.
            timeout_s: For handing it in, in seconds.

        Raises:
            DataError: There are no rows, too many, or they cannot be made the model's input type.
            InvalidArgumentError: It is too large for the queue, or the webhook is no URL.
            NotFoundError: Nothing of this name is deployed.
            ConflictError: The idempotency key was used for another request.
            ResourceExhaustedError: The queue is full.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        form = await self._form(deadline_s)
        tensor = as_tensor(form.name, form.datatype, form.shape, x)
        if form.most_rows and len(tensor.array) > form.most_rows:
            raise DataError(
                f"{len(tensor.array)} rows are too many for one request",
                hint=f"submit at most {form.most_rows} at once",
            )
        # The same key however often it has to be sent, so that it is taken once.
        more = {"idempotency-key": idempotency_key or uuid.uuid4().hex}
        if webhook:
            more["lepton-webhook"] = webhook
        body, headers = encoded(tensor)

        async def hand_in(left_s: float) -> bytearray:
            answer = await self._client.http.request(
                "POST", f"{self._path}/infer-async", body, headers=headers | more, timeout_s=left_s
            )
            return answer.body

        taken = orjson.loads(await retried(hand_in, deadline_s))
        return AsyncQueuedRequest(taken["id"], self._client.http)

    async def row_shape(self, *, timeout_s: float = _TIMEOUT_S) -> tuple[int, ...]:
        """Shape of one row of raw input.

        Raises:
            NotFoundError: Nothing of this name is deployed.
            UnavailableError: No replica answers.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        return (await self._form(deadline_s)).shape[1:]

    async def is_ready(self) -> bool:
        """Whether requests are answered now."""
        try:
            await self._client.http.request("GET", f"{self._path}/ready", timeout_s=_TIMEOUT_S)
        except (NotFoundError, UnavailableError):
            return False
        return True

    async def _predicted(self, x: Any, deadline_s: float) -> NDArray[Any]:
        form = await self._form(deadline_s)
        tensor = as_tensor(form.name, form.datatype, form.shape, x)
        parts = batches_of(tensor.array, form.most_rows or len(tensor.array))
        answers = await self._answers([tensor._replace(array=part) for part in parts], deadline_s)
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    async def _answers(self, tensors: Sequence[Tensor], deadline_s: float) -> list[NDArray[Any]]:
        """In the order of `tensors`. The first failure ends all."""
        answers: list[NDArray[Any]] = [tensors[0].array] * len(tensors)
        waiting = iter(enumerate(tensors))

        async def ask_in_turn() -> None:
            for index, tensor in waiting:
                answers[index] = await self._ask(tensor, deadline_s)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(_AT_ONCE, len(tensors))):
                    tasks.create_task(ask_in_turn())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return answers

    async def _ask(self, tensor: Tensor, deadline_s: float) -> NDArray[Any]:
        async def ask(left_s: float) -> Tensor:
            return await self._client.ask(self.name, tensor, left_s)

        return (await retried(ask, deadline_s)).array

    async def _form(self, deadline_s: float) -> _Form:
        if self._known is None:
            shown = (await self._read(self._path, deadline_s))["inputs"][0]
            config = await self._read(f"{self._path}/config", deadline_s)
            shape = tuple(map(int, shown["shape"]))
            rows = int(config["max_batch_size"])
            self._known = _Form(shown["name"], shown["datatype"], shape, rows)
        return self._known

    async def _read(self, path: str, deadline_s: float) -> Any:
        async def ask(left_s: float) -> bytearray:
            answer = await self._client.http.request("GET", path, timeout_s=left_s)
            return answer.body

        return orjson.loads(await retried(ask, deadline_s))
