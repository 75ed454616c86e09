"""The processes that a rank is made of, as each of them sees the others: mostly there is one."""

from __future__ import annotations

from torch import Tensor

from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.network import Network
from lepton_ai.learn.trainer import Trainer, training_device

__all__ = ["Fellows"]


class Fellows:
    """A rank that is one process. `lepton_worker.fsdp` has the rank of several.

    Whatever several have to call, all of them call, in the same order.

    Attributes:
        index: Of this process. That of index 0 speaks for the rank, and writes for it.
        count: How many processes there are.
    """

    index = 0
    count = 1

    def trainer(self, config: ModelConfig, network: Network, total_steps: int) -> Trainer:
        """A trainer of a network that is on the processor, on the device to train on."""
        return Trainer(config, network.to(training_device()), total_steps=total_steps)

    def told(self, numbers: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What each process says, by its index."""
        return [numbers]

    def first(self, number: int) -> int:
        """What the first process says."""
        return number

    def add(self, tensor: Tensor) -> None:
        """Make a tensor the sum of all processes' tensors."""
