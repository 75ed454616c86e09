"""`python -m lepton_worker.trainer`: one rank. Imports torch first, then waits for its work."""

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
from lepton_ai.errors import InvalidArgumentError, LeptonError
from lepton_ai.malloc import keep_freed_memory
from lepton_worker.channel import AgentChannel
from lepton_worker.checkpoints import Checkpoints
from lepton_worker.rank import Rank
from lepton_worker.work import RankWork

__all__ = ["main"]


def main() -> None:
    """Train what the agent says, then publish when told to."""
    keep_freed_memory()
    channel = AgentChannel()
    _rehearse()
    channel.tell("warm")
    message = channel.hear()
    if message is None:
        return
    try:
        _work(RankWork(**message), channel)
    except Exception as error:  # noqa: BLE001 - whatever it is, the agent hears of it
        traceback.print_exc()
        user_error = isinstance(error, InvalidArgumentError)
        text = str(error) if isinstance(error, LeptonError) else type(error).__name__
        channel.tell("failed", error=text, user_error=user_error)
    # Threads of torchft may still wait for peers.
    os._exit(0)


def _rehearse() -> None:
    """Take one small step: torch and torchmetrics load much of themselves when first used."""
    model = Sequential((2,), [("dense", {"units": 2, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(np.zeros((2, 2)), np.zeros(2, np.int64), epochs=1)


def _work(work: RankWork, channel: AgentChannel) -> None:
    torch.set_num_threads(work.threads)
    folder = Path(work.folder)
    checkpoints = Checkpoints(
        folder,
        work.checkpoint_interval_s,
        work.checkpoint_every_steps,
        lambda step, path: channel.tell("checkpoint", step=step, path=str(path)),
    )
    rank = Rank(work, checkpoints)
    requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    hear = (channel, rank, checkpoints, requests)
    threading.Thread(target=_listen, args=hear, daemon=True).start()
    channel.tell("ready")
    rank.train(lambda progress: channel.tell("progress", **progress))
    checkpoints.finish()
    channel.tell("trained")
    while (request := requests.get()) is not None:
        channel.tell("published", **rank.write(folder, request["onnx"]))


def _listen(
    channel: AgentChannel,
    rank: Rank,
    checkpoints: Checkpoints,
    requests: queue.SimpleQueue[dict[str, Any] | None],
) -> None:
    """Hear the agent while training goes on; a moved lighthouse cannot wait."""
    while (message := channel.hear()) is not None:
        match message["op"]:
            case "move_lighthouse":
                rank.move_lighthouse(message["address"])
            case "checkpoint_stored":
                checkpoints.stored()
            case _:
                requests.put(message)
    requests.put(None)


if __name__ == "__main__":
    main()
