"""Where copies go."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lepton_ai.chunking import digest
from lepton_ai.proto.v1.node_pb2 import Node
from lepton_storage.placement import StorageNode, ranked, storage_node, targets

HASHES = [digest(bytes([number // 256, number % 256])) for number in range(3000)]


def node(name: str, zone: str = "", free_bytes: int = 100) -> StorageNode:
    return StorageNode(name, f"{name}:1", f"{name}:2", zone or name, free_bytes)


def test_shares_follow_free_space() -> None:
    nodes = [node("a", free_bytes=100), node("b", free_bytes=200)]
    shares = Counter(ranked(chunk, nodes)[0].id for chunk in HASHES)
    assert 0.62 < shares["b"] / len(HASHES) < 0.71


def test_a_lost_node_moves_only_its_own_share() -> None:
    nodes = [node(name) for name in "abcde"]
    for chunk in HASHES[:300]:
        before = ranked(chunk, nodes)
        after = ranked(chunk, [each for each in nodes if each.id != "c"])
        assert after == [each for each in before if each.id != "c"]


def test_order_of_the_members_does_not_matter() -> None:
    nodes = [node(name) for name in "abcde"]
    assert ranked(HASHES[0], nodes) == ranked(HASHES[0], reversed(nodes))


@given(st.sampled_from(HASHES), st.lists(st.sampled_from("xyz"), min_size=1, max_size=7))
def test_zones_are_all_used_before_one_is_used_twice(chunk: bytes, zones: list[str]) -> None:
    nodes = [node(f"n{number}", zone) for number, zone in enumerate(zones)]
    here = nodes[0]
    order = [here, *targets(chunk, nodes, held=[here])]
    assert sorted(order, key=lambda each: each.id) == nodes
    different = len(set(zones))
    assert len({each.zone for each in order[:different]}) == different


def test_a_node_without_a_zone_is_its_own() -> None:
    plain, labelled = Node(id="a"), Node(id="b", labels={"zone": "z"})
    assert [storage_node(each).zone for each in (plain, labelled)] == ["a", "z"]
