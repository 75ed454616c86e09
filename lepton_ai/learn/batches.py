"""Which samples make up which batch: a pure function of seed and step.

A rank that joins at step 1,000, a resumed run and a run on one laptop all see the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["BatchPlan", "Indices", "Windows", "epoch_order", "epoch_seed", "rank_rows"]

Indices = NDArray[np.int64]


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, samples: int) -> Indices:
    """The order in which an epoch visits its samples; shared, so not to be changed.

    Example:
        >>> sorted(epoch_order(seed=1, epoch=0, samples=4).tolist())
        [0, 1, 2, 3]
    """
    return np.random.default_rng((seed, epoch)).permutation(samples)


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's dropout and augmentation; as good as unrelated to any other's."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def rank_rows(batch_size: int, rank: int, ranks: int) -> range:
    """The rows of a batch that `rank` of `ranks` computes; shares differ by one row at most.

    The mean gradient of the whole batch is the mean of the ranks' gradients weighted by the
    lengths of their shares.

    Example:
        >>> [list(rank_rows(5, rank, 2)) for rank in range(2)]
        [[0, 1, 2], [3, 4]]
    """
    each, left = divmod(batch_size, ranks)
    start = rank * each + min(rank, left)
    return range(start, start + each + (rank < left))


@dataclass(frozen=True)
class Windows:
    """How a set of samples that is too large to be mixed as a whole is mixed.

    Blocks of samples that lie together come in an order of their own for each epoch. A window is
    some of these blocks, and each batch takes one sample from each of as many parts of the window
    as it has samples, in their order: whoever takes a share of every batch needs that share of the
    window's blocks only.

    Args:
        samples: Samples in the set.
        batch: Samples in a batch.
        block: Samples in a block; the last one may have fewer.
        blocks: Blocks in a window.
    """

    samples: int
    batch: int
    block: int
    blocks: int

    @property
    def size(self) -> int:
        """Samples in a window; the last one may have fewer."""
        return self.block * self.blocks

    def order(self, seed: int, epoch: int, start: int, stop: int) -> Indices:
        """The samples from the place `start` up to `stop` in the order of an epoch."""
        first, last = start // self.size, max(start, stop - 1) // self.size
        edges = [start, *(number * self.size for number in range(first + 1, last + 1)), stop]
        parts = [self._part(seed, epoch, *span) for span in pairwise(edges)]
        samples, places = (np.concatenate(each) for each in zip(*parts, strict=True))
        return samples[np.argsort(places, kind="stable")]

    def _part(
        self, seed: int, epoch: int, start: int, stop: int
    ) -> tuple[Indices, NDArray[np.float64]]:
        """Samples of one window, and where in it each lies, from 0 to below 1."""
        number = start // self.size
        rows, order = _window(self, seed, epoch, number)
        begin = number * self.size
        places = order[start - begin : stop - begin]
        return rows[places], places / len(rows)


@lru_cache(maxsize=4)
def _window(windows: Windows, seed: int, epoch: int, number: int) -> tuple[Indices, Indices]:
    """The samples of a window, block after block, and the order in which they are seen."""
    order = _block_order(seed, epoch, windows.samples // windows.block)
    # The block that is shorter than others comes last: so windows lie at multiples of their size.
    blocks = [*order, len(order)][number * windows.blocks : (number + 1) * windows.blocks]
    starts = [int(block) * windows.block for block in blocks]
    spans = [np.arange(at, min(at + windows.block, windows.samples)) for at in starts]
    rows = np.concatenate(spans)
    return rows, _turns(len(rows), windows.batch, (seed, epoch, number + 1))


def _turns(rows: int, batch: int, seed: tuple[int, ...]) -> Indices:
    """Rows of a window in the order in which they are seen: the first of each part, the second."""
    part_rows = -(-rows // batch)
    chance = np.random.default_rng(seed).random(rows)
    part = np.arange(rows) // part_rows
    turn = np.empty(rows, np.int64)
    turn[np.lexsort((chance, part))] = np.arange(rows) % part_rows
    return np.lexsort((part, turn))


@lru_cache(maxsize=2)
def _block_order(seed: int, epoch: int, blocks: int) -> Indices:
    return np.random.default_rng((seed, epoch)).permutation(blocks)


@dataclass(frozen=True)
class BatchPlan:
    """The batches of a whole run.

    Args:
        samples: Samples in the training set.
        batch_size: Samples in a batch. An epoch's last batch takes what is left; one sample left
            on its own joins the batch before, because batch normalisation needs two.
        seed: Seed of the shuffling.
        shuffle: Whether each epoch has an order of its own; if not, samples come as they lie.
        windows: How samples are mixed; None mixes them all.

    Example:
        >>> plan = BatchPlan(samples=10, batch_size=4, seed=0)
        >>> [len(plan.indices(step)) for step in range(plan.steps_per_epoch)]
        [4, 4, 2]
    """

    samples: int
    batch_size: int
    seed: int
    shuffle: bool = True
    windows: Windows | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        whole, left = divmod(self.samples, self.batch_size)
        return max(1, whole + (left > 1))

    def epoch(self, step: int) -> int:
        """The epoch, counted from zero, that `step` belongs to."""
        return step // self.steps_per_epoch

    def indices(self, step: int) -> Indices:
        """The samples of the batch of `step`, counted from zero over the whole run."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        start = batch * self.batch_size
        is_last = batch == self.steps_per_epoch - 1
        return self._order(epoch, start, self.samples if is_last else start + self.batch_size)

    def _order(self, epoch: int, start: int, stop: int) -> Indices:
        if not self.shuffle:
            return np.arange(start, stop)
        if self.windows is not None:
            return self.windows.order(self.seed, epoch, start, stop)
        return epoch_order(self.seed, epoch, self.samples)[start:stop]
