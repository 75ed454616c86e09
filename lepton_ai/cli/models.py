"""`lepton models`: published models, their aliases and their past."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lepton_ai.cli.arguments import Json, pinned_version
from lepton_ai.cli.output import age_text, lineage, print_json, print_table, to_form
from lepton_ai.cluster.sync import Cluster

__all__ = ["models_app"]

models_app = typer.Typer(help="List published models, or look at one.")

ModelName = Annotated[str, typer.Argument(help="NAME, NAME:VERSION or NAME@ALIAS.")]


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: Json = False) -> None:
    """List published models, or look at one."""
    if context.invoked_subcommand:
        return
    with Cluster() as cluster:
        found, aliases = cluster.models(), cluster.aliases()
    if as_json:
        print_json(found)
        return
    named = {
        (m.name, m.version): [
            a.name for a in aliases if (a.model, a.version) == (m.name, m.version)
        ]
        for m in found
    }
    print_table(
        ("MODEL", "VERSION", "ALIASES", "DATASET", "JOB", "AGE"),
        [
            (
                m.name,
                m.version,
                ", ".join(named[m.name, m.version]),
                m.dataset,
                m.job_id,
                age_text(m.created_at),
            )
            for m in found
        ],
    )


@models_app.command("show")
def models_show(model: ModelName, as_json: Json = False) -> None:
    """Print where a model came from, back to its data."""
    with Cluster() as cluster:
        found = cluster.model(model)
        aliases = [a.name for a in cluster.aliases(found.name) if a.version == found.version]
    if as_json:
        print(json.dumps(to_form(found), indent=2))
        return
    print_table(("", ""), lineage(found, aliases))


@models_app.command("alias")
def models_alias(
    model: Annotated[str, typer.Argument(help="NAME:VERSION, or NAME for its newest.")],
    alias: Annotated[str, typer.Argument(help="Such as champion.")],
    from_version: Annotated[
        int | None, typer.Option(help="Move only from this version; 0: only a new alias.")
    ] = None,
) -> None:
    """Point an alias at a version; deployments that follow it roll."""
    with Cluster() as cluster:
        version = cluster.model(model).version
        name = model.partition(":")[0]
        moved = cluster.move_alias(name, alias, version, from_version=from_version)
    print(f"{moved.model}@{moved.name} is version {moved.version}")


@models_app.command("unalias")
def models_unalias(
    model: Annotated[str, typer.Argument(help="NAME.")],
    alias: Annotated[str, typer.Argument(help="An alias that no deployment follows.")],
) -> None:
    """Forget an alias."""
    with Cluster() as cluster:
        cluster.delete_alias(model, alias)


@models_app.command("delete")
def models_delete(model: Annotated[str, typer.Argument(help="NAME:VERSION.")]) -> None:
    """Forget a version that no alias and no deployment names."""
    name, version = pinned_version(model)
    with Cluster() as cluster:
        cluster.delete_model(name, version)


@models_app.command("keep")
def models_keep(
    model: Annotated[str, typer.Argument(help="NAME.")],
    newest: Annotated[int, typer.Option(min=0, help="How many versions; 0: all.")],
) -> None:
    """Keep only the newest versions, now and after each publication.

    A version that an alias or a deployment names stays.
    """
    with Cluster() as cluster:
        print(f"{cluster.keep_models(model, newest)} versions removed")
