"""A request that waits in the cluster's queue, and its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from numpy.typing import NDArray

from lepton_ai.errors import DeadlineExceededError, UnavailableError
from lepton_ai.http import HttpAnswer, HttpClient
from lepton_ai.oip.rest import JSON_LENGTH_HEADER, decode_answer

__all__ = ["AsyncQueuedRequest"]

_WAIT_S = 20.0
_PAUSE_S = 0.5
_WAITING = 202
# Beside what the server waits, for the way there and back.
_SLACK_S = 10.0


class AsyncQueuedRequest:
    """A request that was taken. Made by `AsyncEndpoint.submit` and `AsyncCluster.queued`.

    Args:
        id_: Of the request: whoever has a key of the same tenant finds it by that.
        http: To the gateway.
    """

    def __init__(self, id_: str, http: HttpClient) -> None:
        self.id = id_
        self._path = f"/v2/requests/{id_}"
        self._http = http

    async def result(self, *, timeout_s: float = 60.0) -> NDArray[Any]:
        """The model's first output, once it is there; a gateway that restarts is waited for.

        Args:
            timeout_s: How long to wait, in seconds. The request goes on waiting after that.

        Raises:
            DeadlineExceededError: It is not there in time.
            NotFoundError: There is no such request of this tenant, or it was forgotten.
            LeptonError: What the model answered instead.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while True:
            left_s = deadline_s - asyncio.get_running_loop().time()
            answer = await self._asked(min(max(left_s, 0.0), _WAIT_S), left_s)
            if answer is not None and answer.status != _WAITING:
                length = answer.headers.get(JSON_LENGTH_HEADER)
                body = bytes(answer.body)
                return decode_answer(body, int(length) if length else None).outputs[0].array
            if left_s <= 0:
                raise DeadlineExceededError(
                    f"request {self.id} has no answer after {timeout_s:g} s",
                    hint="it goes on waiting: ask for its result again",
                )
            if answer is None:
                await asyncio.sleep(_PAUSE_S)

    async def status(self) -> dict[str, Any]:
        """How it stands: ``status`` is "queued", "succeeded" or "failed".

        Raises:
            NotFoundError: There is no such request of this tenant, or it was forgotten.
        """
        answer = await self._http.request("GET", self._path, timeout_s=_SLACK_S)
        return orjson.loads(answer.body)

    async def _asked(self, wait_s: float, left_s: float) -> HttpAnswer | None:
        """None where nobody answers, while there is time to try again."""
        path = f"{self._path}/result?wait_s={wait_s:.3f}"
        try:
            return await self._http.request("GET", path, timeout_s=wait_s + _SLACK_S)
        except UnavailableError as error:
            # Its own failure is told by the same error, but that is in its record.
            if left_s <= 0 or await self._failed():
                raise error from None
            return None

    async def _failed(self) -> bool:
        try:
            return (await self.status())["status"] == "failed"
        except UnavailableError:
            return False
