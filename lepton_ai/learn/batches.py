"""Which samples make up which batch: a pure function of seed and step.

A rank that joins at step 1,000, a resumed run and a run on one laptop all see the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["BatchPlan", "Indices", "epoch_order", "epoch_seed", "rank_rows"]

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
class BatchPlan:
    """The batches of a whole run.

    Args:
        samples: Samples in the training set.
        batch_size: Samples in a batch. An epoch's last batch takes what is left; one sample left
            on its own joins the batch before, because batch normalisation needs two.
        seed: Seed of the shuffling.
        shuffle: Whether each epoch has an order of its own; if not, samples come as they lie.

    Example:
        >>> plan = BatchPlan(samples=10, batch_size=4, seed=0)
        >>> [len(plan.indices(step)) for step in range(plan.steps_per_epoch)]
        [4, 4, 2]
    """

    samples: int
    batch_size: int
    seed: int
    shuffle: bool = True

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
        return self._order(epoch)[start : None if is_last else start + self.batch_size]

    def _order(self, epoch: int) -> Indices:
        if self.shuffle:
            return epoch_order(self.seed, epoch, self.samples)
        return np.arange(self.samples)
