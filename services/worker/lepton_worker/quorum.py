"""A rank's part in its job's quorum: torchft's manager, made anew when the lighthouse moves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torchft import Manager, ProcessGroupGloo, ProcessGroupNCCL

from lepton_ai.errors import UnavailableError
from lepton_ai.learn.batches import rank_rows
from lepton_ai.learn.trainer import training_device
from lepton_worker.fellows import Fellows
from lepton_worker.lateness import Lateness
from lepton_worker.weights import WeightsTransport
from lepton_worker.work import RankWork

__all__ = ["Part", "Quorum", "group_type"]

_log = logging.getLogger("lepton.quorum")
_CALL_S = 10
# Longer than the lighthouse waits for a rank that is late.
_QUORUM_S = 10
_CONNECT_S = 2
# A lighthouse that is lost is placed again within seconds; a job without one cannot go on.
_LOST_S = 120
_RETRY_S = 0.2

# What torchft raises when a peer or a server is gone.
_FAILURES = (RuntimeError, TimeoutError)

_NONE = -1

State = dict[str, Any]


def group_type(device: torch.device) -> type[ProcessGroupGloo | ProcessGroupNCCL]:
    """What carries gradients between ranks that compute on such a device."""
    return ProcessGroupNCCL if device.type == "cuda" else ProcessGroupGloo


class Part(NamedTuple):
    """What a rank does in a step.

    Attributes:
        step: Number of the step, counted from zero.
        rank: Its number among those that compute; None while it takes a peer's state.
        ranks: How many compute.
    """

    step: int
    rank: int | None
    ranks: int

    @property
    def alone(self) -> bool:
        """Whether there is nobody else, not even to take a state from."""
        return self.rank is not None and self.ranks == 1

    def rows(self, batch_size: int, fellows: Fellows) -> range:
        """The rows of a batch that are the share of this one of the rank's processes."""
        if self.rank is None:
            return range(0)
        count = fellows.count
        return rank_rows(batch_size, self.rank * count + fellows.index, self.ranks * count)


def _numbers(part: Part | None) -> tuple[int, ...]:
    """A part, or that there is none, as the processes of a rank tell each other."""
    if part is None:
        return (_NONE, _NONE, _NONE)
    return (part.step, _NONE if part.rank is None else part.rank, part.ranks)


class Quorum:
    """Keeps one `torchft.Manager` that can be used, at the step the rank has reached.

    Each process of a rank keeps one. They agree among themselves as ranks do: the manager's server
    is in the first process, hears the others' votes, and answers all of them the same.

    Args:
        work: The rank's work.
        fellows: The rank's processes.
        step: Steps that its weights have taken.
        state: Gives the rank's state to a peer that joins.
        load: Takes a peer's state when this rank joins.
    """

    def __init__(
        self,
        work: RankWork,
        fellows: Fellows,
        step: int,
        state: Callable[[], State],
        load: Callable[[State], None],
    ) -> None:
        self._work = work
        self._fellows = fellows
        self._state = state
        self._load = load
        self._lighthouse = work.lighthouse
        self._moved: Future[None]
        self._store: TCPStore
        # One for each manager: a call that is given up may hold its thread for a while.
        self._caller: ThreadPoolExecutor
        self._settling: Future[Part]
        self._part = Part(0, None, 0)
        self._group: ProcessGroupGloo | ProcessGroupNCCL
        self._lateness = Lateness()
        self._counted_at = time.monotonic()
        self.manager = self._managed(step)

    def move_lighthouse(self, address: str) -> None:
        """Use another lighthouse from now on; a call that waits for the old one is ended."""
        if address != self._lighthouse:
            self._lighthouse = address
            if not self._moved.done():
                self._moved.set_result(None)

    def begin_step(self) -> None:
        """Begin to agree with the others on who takes part in the next step."""
        self._group.set_timeout(timedelta(seconds=self._lateness.limit_s))
        self._settling = self._caller.submit(self._settle, self.manager)

    @property
    def expected(self) -> Part:
        """This rank's part in the step if everything is as in the step before."""
        return self._part._replace(step=self.manager.current_step())

    def settled(self) -> Part:
        """This rank's part in the step that was begun, once the others agree.

        Raises:
            UnavailableError: No lighthouse could be reached for two minutes, or the processes of
                this rank have come apart.
        """
        while True:
            try:
                part = self._unless_moved()
            except _FAILURES as error:
                _log.warning("no quorum yet: %s", error)
                part = None
            told = self._fellows.told(_numbers(part))
            if part is not None and _numbers(None) not in told:
                if len(set(told)) > 1:
                    raise UnavailableError("the rank's processes are at different steps")
                self._part = part
                return part
            self._reconnect()
            self.begin_step()

    def agree(self) -> bool:
        """Whether the step counts: all who took part have its gradients."""
        try:
            agreed = self.manager.should_commit()
        except _FAILURES as error:
            # Where the others went on without us, the next quorum brings their state.
            _log.warning("step not agreed on: %s", error)
            agreed = False
        if agreed:
            now = time.monotonic()
            self._lateness.step_taken(now - self._counted_at)
            self._counted_at = now
        else:
            self._lateness.step_failed()
        return agreed

    def end(self) -> None:
        """Leave the quorum."""
        self.manager.shutdown(wait=False)

    @staticmethod
    def _settle(manager: Manager) -> Part:
        manager.start_quorum()
        rank, ranks = manager.participating_rank(), manager.num_participants()
        return Part(manager.current_step(), rank, ranks)

    def _unless_moved(self) -> Part:
        """Wait for a call that torchft would let wait out its time when the lighthouse is gone."""
        either: list[Future[Any]] = [self._settling, self._moved]
        wait(either, return_when=FIRST_COMPLETED)
        if not self._settling.done():
            raise TimeoutError("the lighthouse moved")
        return self._settling.result()

    def _reconnect(self) -> None:
        step = self.manager.current_step()
        self.manager.shutdown(wait=False)
        lost_since = time.monotonic()
        while True:
            try:
                self.manager = self._managed(step)
                return
            except _FAILURES as error:
                if time.monotonic() - lost_since > _LOST_S:
                    raise UnavailableError("the job's lighthouse does not answer") from error
            time.sleep(_RETRY_S)

    def _managed(self, step: int) -> Manager:
        if self._fellows.index:
            return self._manager(step, self._fellows.first(0))
        # Each rank is a group of its own, whose store only it and its peers' gloo use. Every
        # manager needs a new one: another lighthouse counts quorums from one again, and gloo
        # would find addresses of the past under their numbers.
        self._store = TCPStore(self._work.bind, 0, is_master=True, wait_for_workers=False)
        manager = self._manager(step, self._store.port)
        self._fellows.first(self._store.port)
        return manager

    def _manager(self, step: int, store_port: int) -> Manager:
        work = self._work
        self._moved = Future[None]()
        self._caller = ThreadPoolExecutor(1, "quorum")
        limit = timedelta(seconds=self._lateness.limit_s)
        self._group = group_type(training_device())(limit)
        manager = Manager(
            pg=self._group,
            load_state_dict=self._load,
            state_dict=self._state,
            min_replica_size=work.min_ranks,
            use_async_quorum=True,
            timeout=timedelta(seconds=_CALL_S),
            quorum_timeout=timedelta(seconds=_QUORUM_S),
            connect_timeout=timedelta(seconds=_CONNECT_S),
            rank=self._fellows.index,
            world_size=self._fellows.count,
            store_addr=work.host,
            store_port=store_port,
            lighthouse_addr=self._lighthouse,
            replica_id=work.replica,
            hostname=work.host,
            checkpoint_transport=WeightsTransport(work.bind, work.host),
            init_sync=False,  # the seed makes equal weights
        )
        manager.load_state_dict({"step": step, "batches_committed": 0})
        return manager
