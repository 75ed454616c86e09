"""`lepton evaluate` and `lepton batch-predict`: a published model over a stored dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from lepton_ai.cli.arguments import Labels
from lepton_ai.cli.job_options import (
    Cpus,
    Gpus,
    JobKey,
    Memory,
    Priority,
    TimeLimit,
    Wait,
    Workers,
    job_options,
    submitted,
)
from lepton_ai.cluster.sync import Cluster

__all__ = ["batch_predict", "evaluate"]

Model = Annotated[str, typer.Argument(help="Published: NAME, NAME:VERSION or NAME@ALIAS.")]
Dataset = Annotated[str, typer.Argument(help="Stored: NAME or NAME:VERSION.")]
Variant = Annotated[str, typer.Option(help="Published with it, such as int8.")]
Split = Annotated[str, typer.Option(help="Default: test where there is one, else train.")]


def evaluate(  # noqa: PLR0917 - options, which typer passes by name
    model: Model,
    dataset: Dataset,
    split: Split = "",
    variant: Variant = "",
    workers: Workers = "1",
    cpus: Cpus = 1.0,
    memory: Memory = "0",
    gpus: Gpus = 0,
    priority: Priority = 0,
    label: Labels = None,
    time_limit: TimeLimit = "0",
    idempotency_key: JobKey = "",
    wait: Wait = False,
) -> None:
    """Measure a published model on a stored dataset; `lepton job show` prints the metrics."""
    options = job_options(
        workers=workers,
        cpus=cpus,
        memory=memory,
        gpus=gpus,
        priority=priority,
        label=label,
        time_limit=time_limit,
        idempotency_key=idempotency_key,
    )
    with Cluster() as cluster:
        job = cluster.submit_evaluation(model, dataset, split=split, variant=variant, **options)
        submitted(cluster, job, wait)


def batch_predict(  # noqa: PLR0917 - options, which typer passes by name
    model: Model,
    dataset: Dataset,
    output: Annotated[
        str, typer.Option(help="Dataset of which the model's outputs become the next version.")
    ],
    split: Split = "",
    variant: Variant = "",
    workers: Workers = "1",
    cpus: Cpus = 1.0,
    memory: Memory = "0",
    gpus: Gpus = 0,
    priority: Priority = 0,
    label: Labels = None,
    time_limit: TimeLimit = "0",
    idempotency_key: JobKey = "",
    wait: Wait = False,
) -> None:
    """Store what a published model makes of a stored dataset, row by row, as a dataset."""
    options = job_options(
        workers=workers,
        cpus=cpus,
        memory=memory,
        gpus=gpus,
        priority=priority,
        label=label,
        time_limit=time_limit,
        idempotency_key=idempotency_key,
    )
    with Cluster() as cluster:
        job = cluster.submit_prediction(
            model, dataset, output, split=split, variant=variant, **options
        )
        submitted(cluster, job, wait)
