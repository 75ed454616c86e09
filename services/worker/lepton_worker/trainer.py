"""`python -m lepton_worker.trainer`: imports torch, then trains in copies of itself."""

from __future__ import annotations

import os
import queue
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lepton_ai import Sequential
from lepton_ai.chunking import CHUNK_BYTES
from lepton_ai.errors import InvalidArgumentError, LeptonError
from lepton_ai.malloc import keep_freed_memory
from lepton_worker.channel import AgentChannel
from lepton_worker.checkpoints import Checkpoints
from lepton_worker.chunked import ChunkedFile
from lepton_worker.devices import present, see_only
from lepton_worker.fellow_processes import fellows_of, wait_for_notice
from lepton_worker.fellows import Fellows
from lepton_worker.forking import go_on_as_copy
from lepton_worker.rank import Rank
from lepton_worker.rendezvous import keep_store
from lepton_worker.work import RankWork, ScoreWork

__all__ = ["main"]


def main() -> None:
    """Do what the agent says, each time in a copy: train, score and publish, or keep a store."""
    keep_freed_memory()
    _rehearse()
    if not go_on_as_copy():
        return
    channel = AgentChannel()
    message = channel.hear()
    if message is None:
        return
    try:
        match message.pop("work"):
            case "store":
                keep_store(message["bind"], channel)
            case "score":
                _score(ScoreWork(**message), channel)
            case _:
                _work(RankWork(**message), channel)
    except Exception as error:  # noqa: BLE001 - whatever it is, the agent hears of it
        traceback.print_exc()
        user_error = isinstance(error, InvalidArgumentError)
        text = str(error) if isinstance(error, LeptonError) else type(error).__name__
        channel.tell("failed", error=text, user_error=user_error)
    # Threads of torchft may still wait for peers.
    os._exit(0)


def _rehearse() -> None:
    """Take one small step: torch and torchmetrics load much of themselves when first used.

    Not where there is an accelerator: copies of a process that has taken it cannot.
    """
    if present():
        return
    model = Sequential((2,), [("dense", {"units": 2, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(np.zeros((2, 2)), np.zeros(2, np.int64), epochs=1)


def _score(work: ScoreWork, channel: AgentChannel) -> None:
    from lepton_worker.scorer import score  # few ranks need ONNX Runtime

    torch.set_num_threads(work.threads)
    see_only(work.gpus)
    score(work, channel)


def _work(work: RankWork, channel: AgentChannel) -> None:
    fellows = fellows_of(work, channel)
    try:
        _train(work, fellows, channel)
    except RuntimeError:
        wait_for_notice(fellows)
        raise


def _train(work: RankWork, fellows: Fellows, channel: AgentChannel) -> None:
    torch.set_num_threads(max(1, work.threads // fellows.count))
    folder = Path(work.folder)
    checkpoints = Checkpoints(
        folder,
        work.checkpoint_interval_s,
        work.checkpoint_every_steps,
        lambda step, path: channel.tell("checkpoint", step=step, path=str(path)),
    )
    file = _chunked(work, channel)
    listener = _Listener(channel, checkpoints, file)
    listener.start()
    rank = Rank(work, fellows, checkpoints, file)
    listener.follow(rank)
    channel.tell("ready")
    rank.train(lambda progress: channel.tell("progress", **progress))
    checkpoints.finish()
    channel.tell("trained")
    while (request := listener.requests.get()) is not None:
        channel.tell("published", **rank.write(folder, request["onnx"]))


def _chunked(work: RankWork, channel: AgentChannel) -> ChunkedFile | None:
    if not work.training_bytes:
        return None
    # This window and the next, and what lies across their edges.
    keep = 3 * (work.window_bytes // CHUNK_BYTES + 1) + 16
    return ChunkedFile(
        work.training_bytes,
        CHUNK_BYTES,
        keep,
        lambda numbers: channel.tell("chunks_wanted", numbers=numbers),
    )


class _Listener(threading.Thread):
    """Hears the agent while the rank works: chunks and a moved lighthouse cannot wait."""

    def __init__(
        self, channel: AgentChannel, checkpoints: Checkpoints, file: ChunkedFile | None
    ) -> None:
        super().__init__(name="listener", daemon=True)
        self._channel = channel
        self._checkpoints = checkpoints
        self._file = file
        self._changing = threading.Lock()
        self._rank: Rank | None = None
        self._address = ""
        self.requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def follow(self, rank: Rank) -> None:
        """Tell a rank where the lighthouse is, from now on."""
        with self._changing:
            self._rank = rank
            if self._address:
                rank.move_lighthouse(self._address)

    def run(self) -> None:
        """Hear until the agent is gone."""
        while (message := self._channel.hear()) is not None:
            self._heard(message)
        self.requests.put(None)

    def _heard(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "move_lighthouse":
                self._moved(message["address"])
            case "checkpoint_stored":
                self._checkpoints.stored()
            case "chunk" if self._file is not None:
                self._file.came(message["number"], Path(message["path"]))
            case "chunk_failed" if self._file is not None:
                self._file.failed(message["number"], message["reason"])
            case _:
                self.requests.put(message)

    def _moved(self, address: str) -> None:
        with self._changing:
            self._address = address
            if self._rank is not None:
                self._rank.move_lighthouse(address)


if __name__ == "__main__":
    main()
