"""`lepton storage`: the nodes that keep bytes."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lepton_ai.cli.output import age_text, print_json, print_table, size_text
from lepton_ai.cluster.sync import Cluster
from lepton_ai.errors import NotFoundError
from lepton_ai.proto.v1 import node_pb2

__all__ = ["storage_app"]

storage_app = typer.Typer(help="List storage nodes, or empty one.")
_LOOK_S = 1.0

NodeId = Annotated[str, typer.Argument(help="Id of a storage node, as 'lepton storage' lists it.")]


@storage_app.callback(invoke_without_command=True)
def storage(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List storage nodes, or empty one."""
    if context.invoked_subcommand:
        return
    with Cluster() as cluster:
        found = _nodes(cluster)
    if as_json:
        print_json(found)
        return
    print_table(
        ("NODE", "ZONE", "CHUNKS", "FREE", "OF", "UP", "STATE"),
        [
            (
                node.id,
                node.labels.get("zone", ""),
                node.chunks,
                size_text(node.disk_free_bytes),
                size_text(node.disk_capacity_bytes),
                age_text(node.started_at),
                _state(node),
            )
            for node in found
        ],
    )


@storage_app.command()
def drain(
    node: NodeId,
    wait: Annotated[bool, typer.Option(help="Until it holds no chunk that is needed.")] = True,
) -> None:
    """Empty a storage node before it is switched off. It goes on also after Ctrl-C."""
    with Cluster() as cluster:
        cluster.drain_storage(node)
        while wait:
            found = _one(cluster, node)
            print(f"{node}: {found.chunks} chunks left", flush=True)
            if found.draining and not found.chunks:
                print(f"{node} may be switched off")
                return
            time.sleep(_LOOK_S)


@storage_app.command()
def undrain(node: NodeId) -> None:
    """Let a drained storage node take chunks again."""
    with Cluster() as cluster:
        cluster.undrain_storage(node)


def _nodes(cluster: Cluster) -> list[node_pb2.Node]:
    return [node for node in cluster.nodes() if node.role == node_pb2.NODE_ROLE_STORAGE]


def _one(cluster: Cluster, node_id: str) -> node_pb2.Node:
    for node in _nodes(cluster):
        if node.id == node_id:
            return node
    raise NotFoundError(f"storage node {node_id!r} is not alive", hint="see 'lepton storage'")


def _state(node: node_pb2.Node) -> str:
    if not node.draining:
        return "ready"
    return "draining" if node.chunks else "drained"
