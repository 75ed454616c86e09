"""Which models are in memory: loaded when asked for, the least recently used ones put to sleep."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from lepton_ai.errors import InternalError, LeptonError, ResourceExhaustedError
from lepton_worker.inference import memory
from lepton_worker.inference.batcher import Batcher, Lane
from lepton_worker.inference.model import Servable

_log = logging.getLogger(__name__)
_ROOM_TIMEOUT_S = 10.0
_POLL_S = 0.02


class Loadable(Protocol):
    """Where a model can be loaded from again and again."""

    @property
    def expected_bytes(self) -> int:
        """Memory it will take when it is loaded, as far as is known."""
        ...

    async def load(self) -> Servable:
        """Load it, warm it up.

        Raises:
            LeptonError: It cannot be loaded.
        """
        ...

    def close(self) -> None:
        """It will not be loaded again."""
        ...


def least_recently_used(lanes: Iterable[Lane]) -> Lane | None:
    """The lane to put to sleep: of those that nobody waits for, the one not used for longest."""
    idle = [lane for lane in lanes if not lane.pending]
    return min(idle, key=lambda lane: lane.used_ns, default=None)


class Residents:
    """Keeps the models in memory within a limit. Used on the event loop only.

    Models are loaded one at a time, so that the growth of the heap meanwhile is the model's size;
    requests of models that are loaded go on. A model that somebody waits for is never put to sleep.

    Args:
        batcher: Told when a lane has its model.
        limit_bytes: What all models may take together; 0 for no limit.
    """

    def __init__(self, batcher: Batcher, limit_bytes: int) -> None:
        self._batcher = batcher
        self._limit_bytes = limit_bytes
        self._awake: set[Lane] = set()
        self._waking: dict[Lane, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._resident_at_start_bytes = memory.resident_bytes()

    @property
    def used_bytes(self) -> int:
        """What the loaded models take together."""
        return sum(lane.size_bytes for lane in self._awake)

    async def load(self, loadable: Loadable, make_lane: Callable[[Servable], Lane]) -> Lane:
        """A lane with its model, once there is room for it.

        Raises:
            ResourceExhaustedError: It is larger than the limit, or models in use leave no room.
            LeptonError: It cannot be loaded.
        """
        async with self._turn:
            lane = make_lane(await self._load(loadable))
            lane.wake = self.wake
            self._awake.add(lane)
            return lane

    def release(self, lane: Lane) -> None:
        """Forget a lane that takes no more work."""
        self._awake.discard(lane)
        if (waking := self._waking.pop(lane, None)) is not None:
            waking.cancel()

    def wake(self, lane: Lane) -> None:
        """Load a lane's model again, once however many ask."""
        if lane not in self._waking:
            waking = asyncio.get_running_loop().create_task(self._wake(lane))
            self._waking[lane] = waking

    async def _wake(self, lane: Lane) -> None:
        loading = asyncio.ensure_future(self._reload(lane))
        try:
            while not loading.done():
                await asyncio.wait([loading], timeout=_POLL_S)
                self._batcher.refuse_late(lane)
            loading.result()
        except LeptonError as error:
            self._batcher.refuse_all(lane, error)
        except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
            _log.exception("model %s could not be loaded again", lane.label)
            self._batcher.refuse_all(lane, InternalError("the model could not be loaded again"))
        finally:
            loading.cancel()
            self._waking.pop(lane, None)

    async def _reload(self, lane: Lane) -> None:
        async with self._turn:
            model = await self._load(lane.loadable)
            lane.model, lane.size_bytes = model, model.size_bytes
            self._awake.add(lane)
        lane.loads += 1
        self._batcher.resume(lane)

    async def _load(self, loadable: Loadable) -> Servable:
        await self._make_room(loadable.expected_bytes)
        model = await loadable.load()
        if self._limit_bytes and model.size_bytes > self._limit_bytes:
            raise ResourceExhaustedError(
                f"the model takes {model.size_bytes} bytes of memory",
                hint=f"all models together may take {self._limit_bytes}",
            )
        await self._give_back(model.size_bytes)
        return model

    async def _make_room(self, wanted_bytes: int) -> None:
        if not self._limit_bytes:
            return
        try:
            async with asyncio.timeout(_ROOM_TIMEOUT_S):
                while self._awake and self.used_bytes + wanted_bytes > self._limit_bytes:
                    await self._put_one_to_sleep()
        except TimeoutError:
            raise ResourceExhaustedError(
                "the models in use take all memory that models may take", hint="try again later"
            ) from None

    async def _put_one_to_sleep(self) -> None:
        lane = least_recently_used(self._awake)
        if lane is None:
            await asyncio.sleep(_POLL_S)
            return
        lane.model = None
        self._awake.discard(lane)

    async def _give_back(self, loaded_bytes: int) -> None:
        """Keep the process within the limit too, once the heap holds much that is free."""
        if not self._limit_bytes:
            return
        while self.used_bytes + loaded_bytes > self._limit_bytes:
            if least_recently_used(self._awake) is None:
                break  # it turned out larger than expected, and all others are in use
            await self._put_one_to_sleep()
        grown_bytes = memory.resident_bytes() - self._resident_at_start_bytes
        if grown_bytes > self._limit_bytes:
            await asyncio.to_thread(memory.give_back)
