"""Two processes with one model between them: trains it beside a whole one, and tells of both."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

import torch

from lepton_ai import Sequential
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.network import build_module
from lepton_ai.learn.trainer import Trainer
from lepton_worker.fsdp import ShardedTrainer, ShardingFellows

STEPS = 4
ROWS = 9


def config(optimizer: str) -> ModelConfig:
    # Layers that cannot be halved, one whose output is a view, and one with a single row.
    model = Sequential(
        (6, 6, 2),
        [
            ("conv", {"filters": 5, "kernel_size": 3, "activation": "relu"}),
            ("layer_norm", {}),
            "flatten",
            ("dense", {"units": 31, "activation": "tanh"}),
            ("dense", {"units": 1}),
        ],
    )
    model.compile(optimizer, "mse", ["mae"])
    return ModelConfig.from_dict(model.to_config())


def bytes_of(tensors: dict[str, Any], begins: str) -> int:
    return sum(v.nbytes for name, v in tensors.items() if name.startswith(begins) and v.ndim)


def main(optimizer: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port, first = listening.getsockname()[1], bool(os.fork())
    torch.set_num_threads(1)
    fellows = ShardingFellows(0 if first else 1, 2, port, listening.detach() if first else None)
    made = config(optimizer)
    alone = Trainer(made, build_module(made, 3), total_steps=STEPS)
    split = fellows.trainer(made, build_module(made, 3), STEPS)
    torch.manual_seed(0)
    inputs, targets = torch.randn(ROWS, 6, 6, 2), torch.randn(ROWS, 1)
    mine = slice(5) if first else slice(5, ROWS)
    for _ in range(STEPS):
        alone.backward(inputs, targets)
        alone.step()
        split.backward(inputs[mine], targets[mine], len(inputs[mine]) / ROWS)
        split.step()
    report(fellows, alone, split)
    # The other one may still wait for what this one has.
    fellows.told((0,))
    os._exit(0)


def report(fellows: ShardingFellows, alone: Trainer, split: ShardedTrainer) -> None:
    held, expected = split.state(), dict(alone.state())
    whole = dict(split.whole(held))
    split.load_state(split.part(expected), STEPS)  # of one process, read by each of two
    again = split.whole(split.state())
    kinds = ("layers.", "~optimizer.")
    sizes = fellows.told(tuple(bytes_of(held, kind) for kind in kinds))
    if fellows.index == 0:
        weights = [name for name in expected if not name.startswith("~meter.")]
        found = {
            "names": sorted(whole) == sorted(expected),
            "off": max(float((whole[n] - expected[n]).abs().max()) for n in weights),
            "kept": all(torch.equal(again[name], expected[name]) for name in weights),
            "held": sizes,
            "whole": [bytes_of(expected, kind) for kind in kinds],
        }
        print(json.dumps(found), flush=True)
    else:
        assert not whole


if __name__ == "__main__":
    main(sys.argv[1])
