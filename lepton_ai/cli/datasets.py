"""`lepton datasets`: what models are trained on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from lepton_ai.cli.arguments import Json, name_and_version, pinned_version
from lepton_ai.cli.output import age_text, print_json, print_table, to_form
from lepton_ai.cluster.sync import Cluster
from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1 import storage_pb2

__all__ = ["datasets_app"]

datasets_app = typer.Typer(help="List datasets, store one, or look at one.")


@datasets_app.callback(invoke_without_command=True)
def datasets(context: typer.Context, as_json: Json = False) -> None:
    """List datasets, store one, or look at one."""
    if context.invoked_subcommand:
        return
    with Cluster() as cluster:
        found = cluster.datasets()
    if as_json:
        print_json(found)
        return
    print_table(
        ("DATASET", "VERSION", "ROWS", "AGE"),
        [
            (
                dataset.name,
                dataset.version,
                ", ".join(f"{split.name} {split.rows:,}" for split in dataset.splits),
                age_text(dataset.created_at),
            )
            for dataset in found
        ],
    )


@datasets_app.command()
def upload(
    name: Annotated[str, typer.Argument(help="Of the dataset.")],
    path: Annotated[
        Path,
        typer.Argument(
            help="A .csv, .parquet, .npy or .npz file, a folder of images with a folder for each "
            "class, a folder with train, validation and test of these, or a .zip or .tar."
        ),
    ],
    label: Annotated[str, typer.Option(help="The column of a table to predict.")] = "",
    image_size: Annotated[str, typer.Option(help="Scale images: HEIGHTxWIDTH.")] = "",
    replication: Annotated[
        int, typer.Option(min=0, max=5, help="Copies wanted; 0: the cluster's default.")
    ] = 0,
) -> None:
    """Store files as the next version of a dataset."""
    size = _size(image_size)
    with Cluster() as cluster:
        stored = cluster.upload_files(
            name, path, label=label, image_size=size, replication=replication
        )
    _print(stored)


@datasets_app.command()
def show(
    dataset: Annotated[str, typer.Argument(help="NAME or NAME:VERSION.")], as_json: Json = False
) -> None:
    """Show a dataset's splits and columns."""
    name, version = name_and_version(dataset)
    with Cluster() as cluster:
        found = cluster.dataset(name, version)
    if as_json:
        print(json.dumps(to_form(found), indent=2))
        return
    _print(found)


@datasets_app.command()
def download(
    dataset: Annotated[str, typer.Argument(help="NAME or NAME:VERSION.")],
    path: Annotated[Path, typer.Argument(help="A file that ends in .npz.")],
    split: Annotated[str, typer.Option(help="Which one.")] = "train",
) -> None:
    """Fetch a split as NumPy arrays, one a column."""
    from lepton_ai.datasets.writers import write_npz

    if path.suffix != ".npz":
        raise InvalidArgumentError(f"{path} is no .npz file", hint="such as rows.npz")
    with Cluster() as cluster:
        arrays = cluster.rows(dataset, split=split)
    write_npz(path, arrays)


@datasets_app.command()
def delete(dataset: Annotated[str, typer.Argument(help="NAME:VERSION.")]) -> None:
    """Forget a version that no job still needs."""
    name, version = pinned_version(dataset)
    with Cluster() as cluster:
        cluster.delete_dataset(name, version)


def _print(dataset: storage_pb2.Dataset) -> None:
    print(f"{dataset.name}:{dataset.version}, made {age_text(dataset.created_at)} ago")
    if dataset.HasField("origin"):
        origin = dataset.origin
        print(f"what {origin.model} made of {origin.dataset}, by job {origin.job_id}")
    print_table(
        ("SPLIT", "ROWS", "COLUMN", "TYPE", "SHAPE OF A ROW", "OBJECT"),
        [
            (
                split.name,
                f"{split.rows:,}",
                column.name,
                column.dtype,
                "x".join(map(str, column.row_shape)) or "-",
                split.object_id[:15],
            )
            for split in dataset.splits
            for column in split.columns
        ],
    )


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None or "0" in found.groups():
        raise InvalidArgumentError(f"{text!r} is no size of images", hint="such as 28x28")
    return int(found[1]), int(found[2])
