"""`lepton submit`, `sweep`, `jobs`, `job` and `logs`: work that ends."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Annotated

import typer

from lepton_ai.cli.arguments import (
    Json,
    Labels,
    parse_duration,
    parse_rungs,
    parse_space,
)
from lepton_ai.cli.job import job_app
from lepton_ai.cli.job_options import (
    Cpus,
    Gpus,
    JobKey,
    Memory,
    Priority,
    StallLimit,
    TimeLimit,
    Wait,
    Workers,
    job_options,
    submitted,
)
from lepton_ai.cli.output import age_text, print_json, print_table
from lepton_ai.cli.scoring import batch_predict, evaluate
from lepton_ai.cluster.progress import state_text
from lepton_ai.cluster.sweeping import Trial
from lepton_ai.cluster.sync import Cluster
from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1 import job_pb2

__all__ = ["add_jobs"]


def add_jobs(app: typer.Typer) -> None:
    """Add the commands about jobs."""
    app.command()(submit)
    app.command()(sweep)
    app.command()(evaluate)
    app.command("batch-predict")(batch_predict)
    app.command("jobs")(list_jobs)
    app.command()(logs)
    app.add_typer(job_app, name="job")


def submit(  # noqa: PLR0917 - options, which typer passes by name
    file: Annotated[
        Path,
        typer.Argument(
            help="With --dataset, what declares a model: .json, .toml or .py. Else a program of "
            "your own, which runs on every worker as torchrun would run it."
        ),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="After --, for your own program.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Stored dataset, NAME or NAME:VERSION.")] = "",
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    publish_as: Annotated[str, typer.Option(help="Publish the result under this name.")] = "",
    seed: int = 0,
    checkpoint_interval_s: Annotated[
        int, typer.Option(min=1, help="Seconds between checkpoints.")
    ] = 60,
    checkpoint_every_steps: Annotated[
        int, typer.Option(min=0, help="Steps between them, where that comes sooner.")
    ] = 0,
    checkpoints_kept: Annotated[int, typer.Option(min=1, help="The newest, till it ends.")] = 2,
    shards: Annotated[
        int,
        typer.Option(min=1, help="Split the model over so many of each worker's --gpus (FSDP)."),
    ] = 1,
    workers: Workers = "1",
    cpus: Cpus = 1.0,
    memory: Memory = "0",
    gpus: Gpus = 0,
    priority: Priority = 0,
    label: Labels = None,
    time_limit: TimeLimit = "0",
    stall_limit: StallLimit = "0",
    idempotency_key: JobKey = "",
    wait: Wait = False,
) -> None:
    """Train a declared model on a stored dataset, or run a program of your own."""
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
    options["stall_limit_s"] = parse_duration(stall_limit)
    with Cluster() as cluster:
        if dataset:
            from lepton_ai.cli.declaration import read_model_file

            job = cluster.submit(
                read_model_file(file),
                dataset,
                epochs=epochs,
                batch_size=batch_size,
                seed=seed,
                publish_as=publish_as,
                checkpoint_interval_s=checkpoint_interval_s,
                checkpoint_every_steps=checkpoint_every_steps,
                checkpoints_kept=checkpoints_kept,
                shards=shards,
                **options,
            )
        elif file.suffix == ".py":
            if shards > 1:
                raise InvalidArgumentError(
                    "a program of your own has no shards", hint="it may use FSDP itself"
                )
            folder = None if file.is_absolute() else Path()
            job = cluster.submit_script(file, arguments or (), folder=folder, **options)
        else:
            raise InvalidArgumentError(
                f"{file} declares a model, and no data is named", hint="add --dataset"
            )
        submitted(cluster, job, wait)


def sweep(  # noqa: PLR0917 - options, which typer passes by name
    file: Annotated[Path, typer.Argument(help="As for submit.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="After --, for your own program.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUES",
            help="Values such as lr=0.1,0.01, or a range: lr=log:1e-4:1e-1, uniform:0:1, int:1:8.",
        ),
    ] = None,
    minimize: Annotated[str, typer.Option(help="The metric to make small.")] = "",
    maximize: Annotated[str, typer.Option(help="The metric to make large.")] = "",
    trials: Annotated[int, typer.Option(min=0, help="To draw; 0: every combination.")] = 0,
    rungs: Annotated[
        str, typer.Option(help="More for the best only (ASHA), such as epochs:1:9.")
    ] = "",
    parallel: Annotated[int, typer.Option(min=1, help="Jobs at a time.")] = 2,
    dataset: Annotated[str, typer.Option(help="What a model learns.")] = "",
    name: Annotated[str, typer.Option(help="The same one again takes the sweep up.")] = "",
    seed: int = 0,
    workers: Workers = "1",
    cpus: Cpus = 1.0,
    memory: Memory = "0",
    gpus: Gpus = 0,
    priority: Priority = 0,
    time_limit: TimeLimit = "0",
) -> None:
    """Try parameters of a model or a program, with a job for each, and find the best."""
    from lepton_ai.cli.declaration import read_model_file

    if bool(minimize) == bool(maximize):
        raise InvalidArgumentError("what is best?", hint="give --minimize or --maximize METRIC")
    options = job_options(
        workers=workers,
        cpus=cpus,
        memory=memory,
        gpus=gpus,
        priority=priority,
        time_limit=time_limit,
    )
    if not name:
        name = f"sweep-{uuid.uuid4().hex[:8]}"
        print(f"the same command with --name {name} takes it up again", file=sys.stderr)
    options["name"] = name
    with Cluster() as cluster:
        found = cluster.sweep(
            read_model_file(file) if dataset else file,
            parse_space(space or ()),
            metric=minimize or maximize,
            maximize=bool(maximize),
            trials=trials,
            rungs=parse_rungs(rungs),
            parallel=parallel,
            dataset=dataset,
            arguments=arguments or (),
            seed=seed,
            tell=lambda trial: print(_trial_text(trial), flush=True),
            **options,
        )
    print(f"best: {_trial_text(found.best)}")


def list_jobs(as_json: Json = False) -> None:
    """List jobs, newest first."""
    with Cluster() as cluster:
        found = cluster.jobs()
    if as_json:
        return print_json(found)
    print_table(
        ("JOB", "STATE", "WORK", "WORKERS", "AGE", "REASON"),
        [
            (
                job.id,
                state_text(job.state),
                _work_text(job.spec),
                f"{job.spec.workers.min}-{job.spec.workers.max}",
                age_text(job.created_at),
                job.reason.partition("\n")[0],
            )
            for job in found
        ],
    )


def logs(
    job_id: str,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    rank: Annotated[int | None, typer.Option(min=0, help="This one alone.")] = None,
) -> None:
    """Print what a job's ranks printed."""
    with Cluster() as cluster:
        for line in cluster.logs(job_id, follow=follow):
            if rank in (None, line.rank):
                print(f"[{line.rank}] {line.text}", flush=True)


def _trial_text(trial: Trial) -> str:
    values = " ".join(f"{name}={value}" for name, value in trial.parameters.items())
    score = "failed" if trial.score is None else f"{trial.score:g}"
    return f"{trial.job_id}  {score}  {values}"


def _work_text(spec: job_pb2.JobSpec) -> str:
    """What a job does, in a word or two."""
    if spec.HasField("script"):
        return spec.script.entry
    if spec.HasField("score"):
        verb = "predict" if spec.score.output else "evaluate"
        return f"{verb} {spec.score.model} on {spec.score.dataset}"
    return f"train on {spec.train.dataset}"
