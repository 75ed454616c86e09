"""Every subcommand: read arguments, call the SDK, print."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lepton_ai.cli import local
from lepton_ai.cli.arguments import Json, Labels, parse_labels, parse_options, parse_range
from lepton_ai.cli.datasets import datasets_app
from lepton_ai.cli.jobs import add_jobs
from lepton_ai.cli.models import models_app
from lepton_ai.cli.nodes import nodes_app
from lepton_ai.cli.output import print_json, print_table, to_form
from lepton_ai.cli.rows import read_rows
from lepton_ai.cli.storage import storage_app
from lepton_ai.cluster.profile import home_folder
from lepton_ai.cluster.sync import Cluster
from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1 import deployment_pb2, options_pb2

__all__ = ["app"]

app = typer.Typer(
    help="Lepton: train, store, publish and serve models on a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="Make and revoke keys.", no_args_is_help=True)
add_jobs(app)
app.add_typer(datasets_app, name="datasets")
app.add_typer(models_app, name="models")
app.add_typer(nodes_app, name="nodes")
app.add_typer(keys_app, name="keys")
app.add_typer(storage_app, name="storage")

# Of a command that is a program of its own.
_ALL_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}

Name = Annotated[str, typer.Argument(help="Name of the deployment.")]


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=1, help="Worker nodes.")] = 2,
    storage: Annotated[int, typer.Option(min=1, help="Storage nodes.")] = 2,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready.")] = False,
) -> None:
    """Start a cluster on this machine."""
    options = local.LocalOptions(home_folder(), port, workers, storage)
    if detach:
        local.detached(options, print)
        print("ready: 'lepton status' shows it, 'lepton down' ends it")
        return
    with local.attached(options, print) as process:
        print("ready: Ctrl-C ends it", flush=True)
        process.wait()


@app.command()
def down() -> None:
    """End the cluster on this machine."""
    print("ended" if local.end(home_folder()) else "no cluster is up")


@app.command()
def status(as_json: Json = False) -> None:
    """Show the cluster in numbers."""
    with Cluster() as cluster:
        found = cluster.status()
    if as_json:
        print(json.dumps(to_form(found), indent=2))
        return
    fields = [field.name for field in found.DESCRIPTOR.fields]
    print_table(("", ""), [(name.replace("_", " "), getattr(found, name)) for name in fields])


@app.command()
def deploy(  # noqa: PLR0917 - options, which typer passes by name
    model: Annotated[
        str, typer.Argument(help="Published: NAME, or NAME@ALIAS to follow an alias.")
    ],
    name: Annotated[str, typer.Option(help="Of the deployment; default: the model's.")] = "",
    version: Annotated[int, typer.Option(help="0: the newest.")] = 0,
    replicas: Annotated[
        str, typer.Option(help="How many, or FEWEST:MOST to follow the load; 0:4 may sleep.")
    ] = "1",
    canary: Annotated[
        int, typer.Option(min=0, max=99, help="Stay at this percent of the requests.")
    ] = 0,
    shadow: Annotated[
        int,
        typer.Option(
            min=0, max=100, help="Compare answers at this percent of the requests; give none."
        ),
    ] = 0,
    min_agreement: Annotated[
        float,
        typer.Option(min=0, max=1, help="Roll back where fewer answers are the old version's."),
    ] = 0.0,
    tolerance: Annotated[
        float, typer.Option(min=0, help="By how much numbers that agree may differ.")
    ] = 0.01,
    stage: Annotated[
        float, typer.Option(min=0, help="Seconds at 1, 10, 50 and 100 %; 0: at once.")
    ] = 10.0,
    variant: Annotated[str, typer.Option(help="Published with it, such as int8.")] = "",
    before: Annotated[
        list[str] | None, typer.Option(help="Model that runs before it on the same node.")
    ] = None,
    after: Annotated[list[str] | None, typer.Option(help="Model that runs after it.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Such as max_queue_delay_us=500."),
    ] = None,
    label: Labels = None,
    hedge_after: Annotated[
        float, typer.Option(min=0, help="Seconds until a slow request goes to another replica too.")
    ] = 0.0,
) -> None:
    """Serve a published model, and wait until it answers.

    A new version takes over by stages, and is rolled back where it does worse. Other options of
    the same version reach its replicas one by one, without a gap.
    """
    fewest, most = parse_range(replicas)
    with Cluster() as cluster:
        endpoint = cluster.deploy(
            model,
            name=name,
            version=version,
            replicas=(fewest, most) if ":" in replicas else most,
            canary=canary,
            shadow=shadow,
            stage_s=stage,
            min_agreement=min_agreement,
            tolerance=tolerance,
            variant=variant,
            before=before or (),
            after=after or (),
            options=parse_options(settings or ()),
            labels=parse_labels(label or ()),
            hedge_after_s=hedge_after,
        )
        print(f"http://{cluster.address}/v2/models/{endpoint.name}")


@app.command()
def undeploy(name: Name) -> None:
    """Stop serving a deployment."""
    with Cluster() as cluster:
        cluster.undeploy(name)


@app.command()
def deployments(as_json: Json = False) -> None:
    """List deployments."""
    with Cluster() as cluster:
        found = cluster.deployments()
    if as_json:
        return print_json(found)
    print_table(
        ("DEPLOYMENT", "MODEL", "STATE", "READY", "TRAFFIC", "AGREEMENT", "REASON"),
        [
            (
                entry.spec.name,
                f"{entry.spec.model}:{entry.spec.version}",
                deployment_pb2.DeploymentState.Name(entry.state)
                .removeprefix("DEPLOYMENT_STATE_")
                .lower(),
                f"{entry.ready_replicas}/{entry.wanted_replicas}",
                " ".join(f"v{share.version}:{share.percent}%" for share in entry.traffic),
                _agreement(entry.agreement),
                entry.reason,
            )
            for entry in found
        ],
    )


def _agreement(found: deployment_pb2.Agreement) -> str:
    if not found.rows:
        return ""
    return f"v{found.version}: {found.agreed / found.rows:.1%} of {found.rows}"


@app.command()
def predict(
    name: Name,
    data: Annotated[
        Path,
        typer.Argument(
            help="Rows: a .csv or .parquet table of inputs, a .npy file, a JSON array (.json, or "
            "- for stdin), or an image, which is scaled to what the model takes."
        ),
    ],
    queued: Annotated[
        bool, typer.Option("--queued", help="Wait in the cluster's queue for a turn.")
    ] = False,
    timeout_s: Annotated[float, typer.Option(min=0, help="Seconds to wait for answers.")] = 60.0,
) -> None:
    """Ask a deployed model, and print its answers as a JSON array."""
    with Cluster() as cluster:
        endpoint = cluster.endpoint(name)
        rows = read_rows(data, endpoint.row_shape)
        if queued:
            request = endpoint.submit(rows)
            typer.echo(f"request {request.id}", err=True)
            answers = request.result(timeout_s=timeout_s)
        else:
            answers = endpoint.predict(rows, timeout_s=timeout_s)
        print(json.dumps(answers.tolist()))


@app.command(context_settings=_ALL_ARGUMENTS, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Serve ONNX models without a cluster; 'lepton serve --help' lists its options."""
    _become("lepton_worker.inference", context.args)


@app.command(context_settings=_ALL_ARGUMENTS, add_help_option=False)
def drill(context: typer.Context) -> None:
    """Hurt a cluster of its own, check what must hold, and measure; 'lepton drill --list'."""
    _become("lepton_runtime.drills", context.args)


@app.command()
def demo() -> None:
    """Train, publish and serve on a cluster of its own, end to end."""
    print("lepton demo: a cluster on this machine, from data to answers", flush=True)
    from lepton_ai.cli.demo import run

    raise SystemExit(run())


@keys_app.command("create")
def keys_create(
    role: Annotated[str, typer.Option(help="viewer, inference, developer or admin.")] = "developer",
    tenant: Annotated[str, typer.Option(help="Whose work it does.")] = "",
    ttl_s: Annotated[int, typer.Option(min=0, help="Seconds; 0: 90 days.")] = 0,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="It may run programs on the workers.")
    ] = False,
) -> None:
    """Make a key; it is shown once."""
    with Cluster() as cluster:
        made = cluster.create_key(_role(role), tenant=tenant, ttl_s=ttl_s, may_run_code=run_code)
    print(json.dumps({"key": made.key, "id": made.id}, indent=2))


@keys_app.command("revoke")
def keys_revoke(key_id: str) -> None:
    """Refuse a key from now on."""
    with Cluster() as cluster:
        cluster.revoke_key(key_id)


def _become(module: str, arguments: list[str]) -> NoReturn:
    """Go on as a program of ours that this package must not import: who ends us ends it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


def _role(name: str) -> options_pb2.Role:
    try:
        return options_pb2.Role.Value(f"ROLE_{name.upper()}")  # pyright: ignore[reportReturnType]
    except ValueError:
        known = [role.removeprefix("ROLE_").lower() for role in options_pb2.Role.keys()[1:]]
        raise InvalidArgumentError(f"{name!r} is no role", hint=", ".join(known)) from None
