"""Which chunks move to an emptier node."""

from __future__ import annotations

from collections import Counter

from lepton_ai.proto.v1.storage_pb2 import Chunk, Object
from lepton_storage.balance import plan_moves
from lepton_storage.manifests import Relocation
from lepton_storage.placement import StorageNode, ranked

FREE = 10_000


def node(name: str, zone: str = "", draining: bool = False) -> StorageNode:
    return StorageNode(name, f"{name}:1", f"{name}:2", zone or name, FREE, draining)


def manifests(nodes: list[str], count: int = 300, first: int = 0) -> list[Object]:
    chunks = [
        Chunk(hash=number.to_bytes(32, "big"), size_bytes=10, nodes=nodes)
        for number in range(first, first + count)
    ]
    return [
        Object(id="o", chunks=chunks[: count // 2]),
        Object(id="p", chunks=chunks[count // 2 :]),
    ]


def settle(objects: list[Object], living: dict[str, StorageNode]) -> int:
    """Let every node hand over until none has anything to; how many copies moved."""
    moved = 0
    for _ in range(20):
        moves = [(me, move) for me in living for move in plan_moves(objects, me, living, 50)]
        if not moves:
            return moved
        for me, move in moves:
            relocation = Relocation(frozenset([me]), (move.target.id,), instead=True)
            for item in objects:
                for chunk in item.chunks:
                    if chunk.hash == move.chunk.hash:
                        before = len(chunk.nodes)
                        chunk.nodes[:] = relocation.applied(chunk.nodes)
                        assert len(chunk.nodes) == before
                        moved += 1
    raise AssertionError("chunks move for ever")


def test_a_node_that_joined_takes_its_share() -> None:
    objects, living = manifests(["a", "b"]), {name: node(name) for name in "abc"}
    assert settle(objects, living) <= 300
    held = Counter(name for item in objects for chunk in item.chunks for name in chunk.nodes)
    assert sum(held.values()) == 600
    assert all(len(set(chunk.nodes)) == 2 for item in objects for chunk in item.chunks)
    assert 130 <= held["c"] <= 220


def test_only_what_the_newcomer_would_have_had_moves() -> None:
    objects, living = manifests(["a", "b"]), {name: node(name) for name in "abc"}
    for move in plan_moves(objects, "a", living, 50):
        order = [each.id for each in ranked(move.chunk.hash, living.values())]
        assert order.index("c") < order.index("a")


def test_balanced_nodes_move_nothing() -> None:
    living = {name: node(name) for name in "abc"}
    assert settle(manifests(["a", "b", "c"]), living) == 0
    objects = [*manifests(["a", "b"], 90), *manifests(["b", "c"], 110, first=90)]
    objects += manifests(["a", "c"], 90, first=200)
    assert settle(objects, living) == 0


def test_zones_stay_apart() -> None:
    living = {"a": node("a", "1"), "b": node("b", "2"), "c": node("c", "2")}
    objects = manifests(["a", "b"])
    assert plan_moves(objects, "a", living, 50) == []
    assert plan_moves(objects, "b", living, 50)


def test_nothing_moves_while_copies_are_missing_or_to_what_is_drained() -> None:
    living = {"a": node("a"), "b": node("b"), "c": node("c", draining=True)}
    assert plan_moves(manifests(["a", "b"]), "a", living, 50) == []
    del living["b"]
    living["c"] = node("c")
    assert plan_moves(manifests(["a", "b"]), "a", living, 50) == []


def test_two_that_hand_over_to_the_same_leave_no_copy_out() -> None:
    nodes = Relocation(frozenset("a"), ("c",), instead=True).applied(["a", "b"])
    assert nodes == ["b", "c"]
    assert Relocation(frozenset("b"), ("c",), instead=True).applied(nodes) == ["b", "c"]
