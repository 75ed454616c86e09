"""`lepton nodes`: the members of the cluster, and workers that are taken out of it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lepton_ai.cli.arguments import Json
from lepton_ai.cli.output import age_text, print_json, print_table
from lepton_ai.cluster.sync import Cluster
from lepton_ai.errors import NotFoundError
from lepton_ai.proto.v1 import node_pb2

__all__ = ["nodes_app"]

nodes_app = typer.Typer(help="List the members that are alive, or look after workers.")
_LOOK_S = 0.5

NodeId = Annotated[str, typer.Argument(help="Id of a worker, as 'lepton nodes' lists it.")]


@nodes_app.callback(invoke_without_command=True)
def nodes(context: typer.Context, as_json: Json = False) -> None:
    """List the members that are alive, or look after workers."""
    if context.invoked_subcommand:
        return
    with Cluster() as cluster:
        found = cluster.nodes()
    if as_json:
        print_json(found)
        return
    print_table(
        ("NODE", "ROLE", "ADDRESS", "CPUS", "TASKS", "UP", "STATE"),
        [
            (
                node.id,
                _role(node),
                node.address,
                f"{node.capacity.cpus:g}" if node.capacity.cpus else "",
                node.tasks if _is_worker(node) else "",
                age_text(node.started_at),
                _state(node),
            )
            for node in found
        ],
    )


@nodes_app.command()
def cordon(node: NodeId) -> None:
    """Give a worker no new work; what runs there goes on."""
    with Cluster() as cluster:
        cluster.workers.cordon(node)


@nodes_app.command()
def drain(
    node: NodeId,
    wait: Annotated[bool, typer.Option(help="Until nothing runs there.")] = True,
) -> None:
    """Empty a worker before it is switched off. It goes on also after Ctrl-C.

    Replicas leave once another one answers, ranks one at a time. What fits nowhere else stays.
    """
    with Cluster() as cluster:
        cluster.workers.drain(node)
        told = None
        while wait:
            left = _one(cluster, node).tasks
            if left != told:
                print(f"{node}: {left} tasks left", flush=True)
            if not left:
                print(f"{node} may be switched off")
                return
            told = left
            time.sleep(_LOOK_S)


@nodes_app.command()
def uncordon(node: NodeId) -> None:
    """Give a worker new work again, whether it was cordoned or drained."""
    with Cluster() as cluster:
        cluster.workers.uncordon(node)


def _one(cluster: Cluster, node_id: str) -> node_pb2.Node:
    for node in cluster.nodes():
        if node.id == node_id:
            return node
    raise NotFoundError(f"worker {node_id!r} is not alive any more", hint="see 'lepton nodes'")


def _is_worker(node: node_pb2.Node) -> bool:
    return node.role == node_pb2.NODE_ROLE_WORKER


def _role(node: node_pb2.Node) -> str:
    name = node_pb2.NodeRole.Name(node.role).removeprefix("NODE_ROLE_").lower()
    return f"{name} (leads)" if node.leader else name


def _state(node: node_pb2.Node) -> str:
    if node.draining:
        return "draining" if node.tasks or node.chunks else "drained"
    return "cordoned" if node.cordoned else "ready"
