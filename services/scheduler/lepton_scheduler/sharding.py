"""How many rows a rank takes at a time: what it holds in memory, and what its loss costs."""

from __future__ import annotations

from lepton_ai.errors import InvalidArgumentError

__all__ = ["how_many_shards", "shard_rows"]

SHARD_BYTES = 16 * 1024 * 1024
MAX_SHARDS = 4096
# So many for each rank at least, that all end at about the same time.
_PER_RANK = 4
# Fewer are not worth the trouble: a shard's result is an object, and two records in etcd.
_LEAST_ROWS = 64


def shard_rows(rows: int, size_bytes: int, ranks: int, asked: int) -> int:
    """Rows of a shard; the last may have fewer.

    Args:
        rows: Of all.
        size_bytes: Of all rows together.
        ranks: How many share them, at most.
        asked: What the job says; 0 leaves it open.

    Raises:
        InvalidArgumentError: What it says would make too many shards.
    """
    least = -(-rows // MAX_SHARDS)
    if asked < 0 or 0 < asked < least:
        raise InvalidArgumentError(
            f"shards of {asked} rows cannot be had",
            hint=f"{least} or more: a dataset is cut into at most {MAX_SHARDS}",
        )
    if asked:
        return asked
    by_size = max(1, rows * SHARD_BYTES // max(1, size_bytes))
    by_ranks = max(_LEAST_ROWS, -(-rows // (_PER_RANK * ranks)))
    return max(least, min(by_size, by_ranks, rows))


def how_many_shards(rows: int, of_shard: int) -> int:
    """How many shards there are."""
    return -(-rows // of_shard)
