"""`lepton job`: one job, how it came to where it is, and where its ranks are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from lepton_ai.cli.arguments import Json
from lepton_ai.cli.output import print_table, to_form
from lepton_ai.cluster.progress import state_text
from lepton_ai.cluster.sync import Cluster
from lepton_ai.proto.v1 import job_pb2, task_pb2

__all__ = ["job_app"]

job_app = typer.Typer(help="Look at one job, take its results, or stop it.", no_args_is_help=True)
_OF_CLASS = re.compile(r"(.+)\[(\d+)\]")
JobId = Annotated[str, typer.Argument(help="Id of a job, as 'lepton jobs' lists it.")]


@job_app.command()
def show(job: JobId, as_json: Json = False) -> None:
    """Print a job: what was asked, every step of its life with its reason, and its ranks."""
    with Cluster() as cluster:
        found = cluster.job(job)
        tasks = cluster.job_tasks(job)
    if as_json:
        print(json.dumps(to_form(found), indent=2))
        return
    print_table(("", ""), _facts(found))
    print_table(
        ("AT", "ATTEMPT", "STATE", "REASON"),
        [
            (_time(step.at), step.attempt, state_text(step.state), step.reason)
            for step in found.history
        ],
    )
    _print_metrics(found.result.metrics)
    if tasks:
        print_table(("TASK", "NODE", "ATTEMPT", "STATE", "REASON"), map(_standing, tasks))


@job_app.command()
def cancel(job: JobId) -> None:
    """Stop a job."""
    with Cluster() as cluster:
        print(state_text(cluster.cancel(job).state))


@job_app.command()
def output(
    job: JobId,
    folder: Annotated[Path, typer.Argument(help="Made when it is missing.")] = Path(),
) -> None:
    """Fetch the files that a job's program left in $LEPTON_OUTPUT_DIR."""
    with Cluster() as cluster:
        for path in cluster.output(job, folder):
            print(path)


def _facts(job: job_pb2.Job) -> list[tuple[str, str]]:
    need, workers = job.spec.resources, job.spec.workers
    each = [f"{need.cpus:g} cpus", *([f"{need.gpus} gpus"] if need.gpus else [])]
    facts = [
        ("job", job.id),
        ("name", job.spec.name),
        ("tenant", job.tenant),
        ("state", state_text(job.state)),
        ("reason", job.reason),
        ("workers", f"{workers.min}-{workers.max} of {', '.join(each)}"),
        ("labels", ", ".join(f"{name}={text}" for name, text in sorted(job.spec.labels.items()))),
        ("priority", str(job.spec.priority or "")),
        ("time limit", f"{job.spec.time_limit_s} s" if job.spec.time_limit_s else ""),
        ("model", job.spec.score.model),
        ("reads", _reads(job.spec)),
        ("result", job.result.dataset),
    ]
    return [(name, text) for name, text in facts if text]


def _reads(spec: job_pb2.JobSpec) -> str:
    """The dataset and split that a job reads; nothing for a program."""
    work = spec.score if spec.HasField("score") else spec.train
    return f"{work.dataset} {work.split}".strip()


def _print_metrics(metrics: Mapping[str, float]) -> None:
    """Print what was measured of all rows, then of those of each class."""
    of_class = {name: _OF_CLASS.fullmatch(name) for name in metrics}
    overall = sorted(name for name, found in of_class.items() if not found)
    if overall:
        print_table(("METRIC", "ALL ROWS"), [(name, f"{metrics[name]:.6g}") for name in overall])
    kinds = sorted({found[1] for found in of_class.values() if found})
    if kinds:
        classes = sorted({int(found[2]) for found in of_class.values() if found})
        rows = [[f"{metrics.get(f'{kind}[{each}]', 0):.6g}" for kind in kinds] for each in classes]
        print_table(
            ("CLASS", *(kind.upper() for kind in kinds)),
            [(str(each), *row) for each, row in zip(classes, rows, strict=True)],
        )


def _standing(pair: tuple[task_pb2.Task, task_pb2.TaskStatus]) -> tuple[object, ...]:
    task, status = pair
    state = task_pb2.TaskState.Name(status.state).removeprefix("TASK_STATE_").lower()
    placed = "placed" if status.state == task_pb2.TASK_STATE_UNSPECIFIED else state
    return task.id, task.node_id, task.attempt, placed, status.reason


def _time(moment: Timestamp) -> str:
    return moment.ToDatetime(UTC).astimezone().isoformat(" ", "milliseconds")
