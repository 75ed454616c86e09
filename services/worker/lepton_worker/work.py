"""What one rank is told to do; fit for JSON."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RankWork", "ScoreWork"]


@dataclass(frozen=True)
class RankWork:
    """One rank of one job.

    Attributes:
        config: The model, as `ModelConfig.to_dict` writes it, as JSON.
        training: File with the columns x and y; empty where they come chunk by chunk.
        training_bytes: Size of what comes chunk by chunk, or 0.
        window_bytes: Samples of so many bytes are mixed, where they come chunk by chunk.
        validation: File with the columns x and y, or empty.
        weights: A model file to begin from, or empty.
        checkpoint: A checkpoint to go on from, or empty.
        checkpoint_interval_s: Seconds between checkpoints.
        checkpoint_every_steps: Steps between them, where that comes sooner; 0 for none.
        folder: Where to write results.
        bind: Address of this node to listen on.
        host: How other nodes reach it.
        lighthouse: URL of the job's quorum server.
        replica: Unique name of this attempt at this rank.
        rank: Its number.
        replaces: Whether it takes the place of one before it: others may be further than it is.
        min_ranks: Quorum below which no step is taken.
        epochs: Passes over the data.
        batch_size: Samples in a step, over all ranks.
        validation_fraction: Last share of the training data held out.
        seed: Of weights, order and dropout.
        shuffle: Whether each epoch has an order of its own.
        shards: Processes that the model is split over.
        threads: For torch, of all processes.
        gpus: Accelerators that the rank has, of which each process uses one.
    """

    config: str
    training: str
    training_bytes: int
    window_bytes: int
    validation: str
    weights: str
    checkpoint: str
    checkpoint_interval_s: float
    checkpoint_every_steps: int
    folder: str
    bind: str
    host: str
    lighthouse: str
    replica: str
    rank: int
    replaces: bool
    min_ranks: int
    epochs: int
    batch_size: int
    validation_fraction: float
    seed: int
    shuffle: bool
    shards: int
    threads: int
    gpus: list[int]


@dataclass(frozen=True)
class ScoreWork:
    """One rank of an evaluation or batch prediction.

    Attributes:
        model: The ONNX file.
        config: The model, as `ModelConfig.to_dict` writes it, as JSON, to measure its outputs;
            empty where they are kept.
        rows: Of the split.
        size_bytes: Of the split's object, which comes chunk by chunk.
        shard_rows: Rows of a shard; the last may have fewer.
        attempt: Unique name of this attempt at this rank.
        folder: Where to write results.
        threads: To compute with.
        gpus: Accelerators that the rank has, of which it uses the first.
    """

    model: str
    config: str
    rows: int
    size_bytes: int
    shard_rows: int
    attempt: str
    folder: str
    threads: int
    gpus: list[int]
