"""`lepton storage`: the nodes that keep bytes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from lepton_ai.cli.arguments import Json, parse_size
from lepton_ai.cli.output import age_text, print_json, print_table, size_text, to_form
from lepton_ai.cluster.sync import Cluster
from lepton_ai.errors import NotFoundError
from lepton_ai.proto.v1 import node_pb2, storage_pb2

__all__ = ["storage_app"]

storage_app = typer.Typer(help="List storage nodes, or look after them.")
_LOOK_S = 1.0

NodeId = Annotated[str, typer.Argument(help="Id of a storage node, as 'lepton storage' lists it.")]


@storage_app.callback(invoke_without_command=True)
def storage(
    context: typer.Context,
    as_json: Json = False,
) -> None:
    """List storage nodes, or look after them."""
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
        cluster.storage.drain(node)
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
        cluster.storage.undrain(node)


@storage_app.command()
def fsck(as_json: Json = False) -> None:
    """Read all that storage nodes have, and check it against what is known of it.

    Ends with status 1 when something is not as it should be. Healing needs no command: what can
    be repaired is.
    """
    findings: list[storage_pb2.Finding] = []
    told = storage_pb2.CheckSummary()
    with Cluster() as cluster:
        for answer in cluster.storage.check():
            if answer.HasField("finding"):
                findings.append(answer.finding)
            elif answer.HasField("summary"):
                told = answer.summary
            else:
                print(f"{answer.copies_so_far} copies read", file=sys.stderr)
    if as_json:
        print(json.dumps({**to_form(told), "found": [to_form(each) for each in findings]}))
    else:
        _print_findings(findings)
        print(_in_words(told))
    if told.findings:
        raise typer.Exit(1)


@storage_app.command()
def usage(as_json: Json = False) -> None:
    """Show what each tenant stores and may store."""
    with Cluster() as cluster:
        found = cluster.storage.usage()
    if as_json:
        print_json(found)
        return
    print_table(
        ("TENANT", "OBJECTS", "STORES", "MAY STORE"),
        [
            (
                each.tenant,
                each.objects,
                size_text(each.size_bytes),
                size_text(each.quota_bytes) if each.quota_bytes else "no limit",
            )
            for each in found
        ],
    )


@storage_app.command()
def quota(
    tenant: Annotated[str, typer.Argument(help="Name of the tenant.")],
    size: Annotated[str, typer.Argument(help="Such as 500MiB or 2TiB; 0 for no limit.")],
) -> None:
    """Limit what a tenant stores. What it has already stays."""
    size_bytes = parse_size(size)
    with Cluster() as cluster:
        cluster.storage.set_quota(tenant, size_bytes)


@storage_app.command("rotate-key")
def rotate_key() -> None:
    """Wrap tenants' keys by the newest master key, once every storage node has it.

    Put the new key before the old one in the file that LEPTON_MASTER_KEY_FILE names, restart the
    storage nodes one by one, run this, then remove the old key from the file. No chunk is
    written anew.
    """
    with Cluster() as cluster:
        count = cluster.storage.rotate_master_key()
    print(f"{count} tenants' keys are wrapped by the newest master key")


def _print_findings(findings: Sequence[storage_pb2.Finding]) -> None:
    if not findings:
        return
    print_table(
        ("PROBLEM", "NODE", "OBJECT", "CHUNK", "NAMED BY"),
        [
            (
                storage_pb2.Finding.Problem.Name(each.problem)
                .removeprefix("PROBLEM_")
                .replace("_", " ")
                .lower(),
                each.node_id,
                each.object_id,
                each.chunk.hex()[:12],
                each.named_by,
            )
            for each in findings
        ],
    )


def _in_words(told: storage_pb2.CheckSummary) -> str:
    return (
        f"{told.objects} objects of {told.chunks} chunks with {told.copies} good copies; "
        f"{told.unnamed_objects} objects and {told.unnamed_copies} copies that nothing names, "
        f"which go when they are old; {told.findings or 'no'} findings"
    )


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
