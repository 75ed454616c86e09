"""A rank of several processes, each of which holds a part of the model: torch's FSDP2."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from typing_extensions import override

from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.network import Network
from lepton_ai.learn.trainer import Trainer, optimizer_index, training_device
from lepton_worker.fellows import Fellows
from lepton_worker.rendezvous import open_store

__all__ = ["ShardedTrainer", "ShardingFellows"]

# One that dies takes the others with it at once, and the agent replaces a rank that hangs: this is
# longer than both, and than it takes to find another lighthouse.
_LIMIT = timedelta(seconds=600)
_LOOPBACK = "127.0.0.1"
_INTERFACE = "GLOO_SOCKET_IFNAME"


class ShardedTrainer(Trainer):
    """A trainer of which each process holds a part of every parameter, gradient and moment.

    Layers are put together from all parts when they are computed, one after the other. What the
    optimizer moves are the parts themselves, so that any optimizer that works element by element
    does what it would do to the whole; `weights` and `state` are of these parts.

    Args:
        config: A compiled model.
        network: Its network, on the processor: as a whole it need not fit the device.
        mesh: The processes.
        total_steps: As of `Trainer`.
    """

    def __init__(
        self, config: ModelConfig, network: Network, mesh: DeviceMesh, *, total_steps: int
    ) -> None:
        _shard(network, mesh)
        self._mesh = mesh
        # In the order of the optimizer's indices.
        self._placed = {
            name: parameter
            for name, parameter in network.named_parameters()
            if isinstance(parameter, DTensor)
        }
        parts = {name: nn.Parameter(whole.to_local()) for name, whole in self._placed.items()}
        held = {**network.state_dict(), **parts}
        self._held = {name: value.detach() for name, value in held.items()}
        super().__init__(config, network, total_steps=total_steps, parameters=list(parts.values()))

    @override
    def backward(self, inputs: Tensor, targets: Tensor, weight: float = 1.0) -> None:
        """As of `Trainer`, for this process's samples; gradients become the sum over processes."""
        self.module.zero_grad()
        # FSDP takes the mean.
        super().backward(inputs, targets, weight * self._mesh.size())
        for part, whole in zip(self.parameters, self._placed.values(), strict=True):
            assert isinstance(whole.grad, DTensor)
            part.grad = whole.grad.to_local()

    @override
    def weights(self) -> dict[str, Tensor]:
        # Not from the module: asked for its state, FSDP takes apart what may be computing now, for
        # a peer may join at any time. They stay where they are in memory.
        return dict(self._held)

    @override
    def load_state(self, tensors: Mapping[str, Tensor], steps_done: int) -> None:
        weights = {name: self._joined(tensors[name], whole) for name, whole in self._placed.items()}
        super().load_state({**tensors, **weights}, steps_done)

    @override
    def whole(self, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole of tensors of a state, in the first process, on the processor; else nothing.

        On the device no more than one of them is whole at a time.
        """
        whole: dict[str, Tensor] = {}
        # By name: a state that came in a file has an order of its own in each process.
        for name, value in sorted(held.items()):
            placed = self._placed_as(name, value)
            found = value if placed is None else self._gathered(value, placed)
            if self._mesh.get_local_rank() == 0:
                whole[name] = found.cpu()
        return whole

    @override
    def part(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of whole tensors of a state, what `state` would return here."""
        return {
            name: value if self._placed_as(name, value) is None else self._cut(value)
            for name, value in whole.items()
        }

    def _placed_as(self, name: str, value: Tensor) -> DTensor | None:
        """The parameter that a tensor of a state is, or belongs to, and is split as."""
        index = optimizer_index(name)
        if index is None:
            return self._placed.get(name)
        # Steps are counted in tensors without axes, which every process has.
        return list(self._placed.values())[index] if value.ndim else None

    def _cut(self, whole: Tensor) -> Tensor:
        """This process's rows, of which the last processes may have fewer, or none."""
        index, each = self._mesh.get_local_rank(), -(-len(whole) // self._mesh.size())
        return whole[index * each : (index + 1) * each]

    def _gathered(self, part: Tensor, placed: DTensor) -> Tensor:
        """In the first process, all parts together."""
        count = self._mesh.size()
        each = -(-len(placed) // count)
        padded = part.new_zeros(each, *part.shape[1:])
        padded[: len(part)] = part
        first = self._mesh.get_local_rank() == 0
        parts = [torch.empty_like(padded) for _ in range(count)] if first else None
        dist.gather(padded, parts)
        return torch.cat(parts)[: len(placed)] if parts else part

    def _joined(self, part: Tensor, placed: DTensor) -> DTensor:
        return DTensor.from_local(
            part.to(placed.device),
            self._mesh,
            placed.placements,
            run_check=False,
            shape=placed.shape,
            stride=placed.stride(),
        )


class ShardingFellows(Fellows):
    """Several processes of one node, each with a device of its own.

    Between processors they talk by gloo over the loopback interface, between GPUs by NCCL.

    Args:
        index: Of this process.
        count: How many there are.
        port: Of the loopback interface, where they meet.
        listening: Socket that listens there, for the first of them.
    """

    def __init__(self, index: int, count: int, port: int, listening: int | None) -> None:
        self.index = index
        self.count = count
        device = training_device()
        store = open_store(_LOOPBACK, port, listening)
        gpus = ",cuda:nccl" if device.type == "cuda" else ""
        elsewhere = os.environ.get(_INTERFACE)
        os.environ[_INTERFACE] = "lo"
        dist.init_process_group(
            f"cpu:gloo{gpus}", store=store, rank=index, world_size=count, timeout=_LIMIT
        )
        # Other ranks are on other nodes.
        os.environ.pop(_INTERFACE)
        if elsewhere is not None:
            os.environ[_INTERFACE] = elsewhere
        self._mesh = init_device_mesh(device.type, (count,))

    @override
    def trainer(self, config: ModelConfig, network: Network, total_steps: int) -> ShardedTrainer:
        return ShardedTrainer(config, network, self._mesh, total_steps=total_steps)

    @override
    def told(self, numbers: tuple[int, ...]) -> list[tuple[int, ...]]:
        mine = torch.tensor(numbers)
        found = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(found, mine)
        return [tuple(each.tolist()) for each in found]

    @override
    def first(self, number: int) -> int:
        said = torch.tensor(number)
        dist.broadcast(said, 0)
        return int(said)

    @override
    def add(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor)


def _shard(network: Network, mesh: DeviceMesh) -> None:
    """Leave a part of each parameter here, on the device; each layer is gathered by itself."""
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # none is changed
    network.preprocess.to(mesh.device_type)
    # FSDP takes no other layout.
    network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    for layer in network.layers.children():
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh)
    fully_shard(network.layers, mesh=mesh)
