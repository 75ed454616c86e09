"""What every command that submits a job can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from lepton_ai.cli.arguments import parse_duration, parse_labels, parse_range, parse_size
from lepton_ai.cluster.jobs import JobOptions
from lepton_ai.cluster.progress import state_text
from lepton_ai.cluster.sync import Cluster
from lepton_ai.proto.v1 import job_pb2

__all__ = [
    "Cpus",
    "Gpus",
    "JobKey",
    "Memory",
    "Priority",
    "StallLimit",
    "TimeLimit",
    "Wait",
    "Workers",
    "job_options",
    "submitted",
]

Workers = Annotated[str, typer.Option(help="The most, or FEWEST:MOST.")]
Cpus = Annotated[float, typer.Option(min=0, help="Processor cores for each worker.")]
Memory = Annotated[str, typer.Option(help="For each worker, such as 4GiB; more ends it.")]
Gpus = Annotated[int, typer.Option(min=0, help="Accelerators for each worker.")]
Priority = Annotated[
    int, typer.Option(min=-100, max=100, help="Less urgent jobs make room for it.")
]
StallLimit = Annotated[
    str, typer.Option(help="Such as 10m without any step; then ranks are replaced. 0: 5 minutes.")
]
TimeLimit = Annotated[str, typer.Option(help="Such as 2h or 90m; then it fails.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow it to its end.")]
JobKey = Annotated[
    str, typer.Option(help="Submitting with the same one again makes no second job.")
]


def job_options(
    *,
    workers: str,
    cpus: float,
    memory: str,
    gpus: int,
    priority: int,
    time_limit: str,
    label: Sequence[str] | None = None,
    idempotency_key: str = "",
) -> JobOptions:
    """What these options, as they are written, ask for.

    Raises:
        InvalidArgumentError: One is not written as it has to be.
    """
    fewest, most = parse_range(workers)
    return JobOptions(
        workers=most,
        min_workers=fewest,
        cpus=cpus,
        memory_bytes=parse_size(memory),
        gpus=gpus,
        priority=priority,
        labels=parse_labels(label or ()),
        time_limit_s=parse_duration(time_limit),
        idempotency_key=idempotency_key,
    )


def submitted(cluster: Cluster, job: job_pb2.Job, wait: bool) -> None:
    """Print a submitted job's id, and with `wait` how it ended."""
    print(job.id, flush=True)
    if wait:
        print(state_text(cluster.wait(job).state))
