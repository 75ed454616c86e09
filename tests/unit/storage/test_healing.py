"""Which node heals what, and when."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lepton_ai.chunking import digest
from lepton_ai.proto.v1.storage_pb2 import Chunk, Object
from lepton_storage.healing import Absences, Health, health, plan
from lepton_storage.placement import StorageNode

NAMES = "abcde"


def living(names: str) -> dict[str, StorageNode]:
    return {name: StorageNode(name, f"{name}:1", f"{name}:2", name, 100) for name in names}


def test_a_reboot_is_no_loss() -> None:
    absences = Absences(30.0)
    assert absences.lost(0.0, "ab", "a", {}) == set()
    assert absences.lost(29.0, "ab", "a", {}) == set()
    assert absences.lost(30.0, "ab", "a", {}) == {"b"}
    assert absences.lost(31.0, "ab", "ab", {}) == set()
    assert absences.lost(32.0, "ab", "a", {}) == set()


def test_an_absence_begins_when_the_node_was_last_heard_of() -> None:
    absences = Absences(30.0)
    assert absences.lost(10.0, "ab", "a", {"b": 5.0}) == set()
    assert absences.lost(34.0, "ab", "a", {"b": 5.0}) == set()
    assert absences.lost(35.0, "ab", "a", {"b": 5.0}) == {"b"}


@given(
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.sets(st.sampled_from(NAMES)),
    st.integers(1, 5),
    st.binary(min_size=1, max_size=4),
)
def test_exactly_one_holder_makes_up_for_what_is_lost(
    holders: set[str], alive: set[str], replication: int, content: bytes
) -> None:
    chunk = Chunk(hash=digest(content), size_bytes=1, nodes=sorted(holders))
    manifest = Object(id="o", chunks=[chunk], replication=replication)
    nodes, lost = living("".join(alive)), holders - alive
    plans = {name: plan(manifest, name, nodes, lost) for name in alive}
    healers = {name: repairs[0] for name, repairs in plans.items() if repairs}
    survivors = holders & alive
    due = survivors and len(survivors) < min(replication, len(alive))
    assert len(healers) == (1 if due else 0)
    for name, repair in healers.items():
        assert name in survivors
        assert repair.count == min(replication, len(alive)) - len(survivors)
        assert {node.id for node in repair.targets} == alive - survivors
        assert set(repair.holders) == survivors


def test_nothing_is_copied_while_a_node_may_come_back() -> None:
    chunk = Chunk(hash=digest(b"x"), size_bytes=1, nodes=["a", "b"])
    manifest = Object(id="o", chunks=[chunk], replication=2)
    assert plan(manifest, "a", living("ac"), lost=set()) == []
    assert len(plan(manifest, "a", living("ac"), lost={"b"})) == 1


def test_what_lacks_copies_is_counted() -> None:
    whole = Chunk(hash=b"w", nodes=["a", "b"])
    short = Chunk(hash=b"s", nodes=["a", "c"])
    gone = Chunk(hash=b"g", nodes=["c"])
    manifests = [
        Object(id="o", chunks=[whole, short, gone], replication=2),
        Object(id="p", chunks=[short, short], replication=1),
    ]
    assert health(manifests, living("ab"), "b") == Health(under_replicated=2, unreadable=1, here=1)
    assert health(manifests, living("abc"), "c") == Health(under_replicated=1, unreadable=0, here=2)
    assert health([], living("a"), "a") == Health()


def test_a_draining_node_gives_what_it_has_and_is_let_go() -> None:
    chunk = Chunk(hash=digest(b"x"), size_bytes=1, nodes=["a", "b"])
    manifest = Object(id="o", chunks=[chunk], replication=2)
    nodes = living("abc")
    nodes["a"] = replace(nodes["a"], draining=True)
    plans = [repair for me in "abc" for repair in plan(manifest, me, nodes, set())]
    [repair] = plans
    assert (repair.holders, repair.count) == (("b",), 1)
    assert [node.id for node in repair.targets] == ["c"]


def test_a_draining_node_is_let_go_where_the_others_have_all_they_can() -> None:
    chunk = Chunk(hash=digest(b"x"), size_bytes=1, nodes=["a", "b"])
    manifest = Object(id="o", chunks=[chunk], replication=2)
    nodes = living("ab")
    nodes["a"] = replace(nodes["a"], draining=True)
    [repair] = [repair for me in "ab" for repair in plan(manifest, me, nodes, set())]
    assert (repair.holders, repair.count) == (("b",), 0)
    alone = Object(id="o", chunks=[Chunk(hash=digest(b"x"), nodes=["a"])], replication=1)
    [repair] = plan(alone, "a", nodes, set())
    assert (repair.holders, repair.count, repair.targets[0].id) == ((), 1, "b")
