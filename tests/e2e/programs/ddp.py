"""An ordinary program for torchrun: it knows nothing of Lepton but two folders."""

import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from helper import target  # a module of the same folder
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.5)
parser.add_argument("--steps", type=int, default=60)
options = parser.parse_args()

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(2, 1, bias=False))
optimizer = torch.optim.SGD(model.parameters(), lr=options.lr)
saved = Path(os.environ["LEPTON_CHECKPOINT_DIR"], "state.pt")
first = 0
if saved.exists():
    state = torch.load(saved, weights_only=True)
    first = state["step"]
    model.module.load_state_dict(state["model"])
print(f"begins at step {first} of {options.steps} with {world} ranks", flush=True)
x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[rank % 2 :: world]
for step in range(first, options.steps):
    optimizer.zero_grad()
    loss = ((model(x) - target(x)) ** 2).mean()
    loss.backward()
    optimizer.step()
    if rank == 0 and step % 5 == 4:
        torch.save(
            {"step": step + 1, "model": model.module.state_dict()}, saved.with_suffix(".new")
        )
        saved.with_suffix(".new").replace(saved)
    print(f"step {step}", flush=True)
    time.sleep(0.15)
if rank == 0:
    output = Path(os.environ["LEPTON_OUTPUT_DIR"])
    (output / "metrics.json").write_text(json.dumps({"loss": loss.item()}))
    (output / "weights.json").write_text(json.dumps(model.module.weight.tolist()))
dist.destroy_process_group()
