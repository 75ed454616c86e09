"""What `lepton storage fsck` finds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from storage_nodes import Nodes, nodes_of

from lepton_ai.chunking import digest
from lepton_ai.proto.v1.storage_pb2 import CheckSummary, Finding, Object
from lepton_runtime import keys
from lepton_runtime.state import Write
from lepton_storage import checking
from lepton_storage.checking import Checker
from lepton_storage.manifests import Manifests


async def check(nodes: Nodes) -> tuple[list[Finding], CheckSummary]:
    checker = Checker(
        node_id="a",
        state=nodes.state,
        chunks=nodes.chunks["a"],
        manifests=Manifests(nodes.state),
        holders=lambda: nodes.members.nodes,
        peers=nodes.peers,
    )
    answers = [answer async for answer in checker.check()]
    found = [answer.finding for answer in answers if answer.HasField("finding")]
    return found, answers[-1].summary


def path_of(stored: Object) -> str:
    name = stored.chunks[0].hash.hex()
    return f"{name[:2]}/{name}"


def test_a_sound_cluster_has_no_findings(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            for number in range(5):
                await nodes.put(bytes([number]))
            await nodes.chunks["b"].write(digest(b"left over"), b"left over", "team")
            found, told = await check(nodes)
            assert found == []
            assert told == CheckSummary(
                objects=5, chunks=5, copies=15, unnamed_copies=1, unnamed_objects=5
            )

    asyncio.run(scenario())


def test_each_problem_is_told_with_where_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            spoilt, missing, lost, few = [await nodes.put(bytes([n])) for n in range(4)]
            (nodes.folder / "b/chunks" / path_of(spoilt)).write_bytes(b"x")
            (nodes.folder / "c/chunks" / path_of(missing)).unlink()
            for name in "abc":
                (nodes.folder / name / "chunks" / path_of(lost)).unlink()
            few.chunks[0].nodes[:] = ["a"]
            wrong = Object(id=f"b3-{'0' * 64}", chunks=few.chunks, replication=1)
            named = f"b3-{'1' * 64}"
            writes = [
                Write(keys.object_(few.id), few.SerializeToString()),
                Write(keys.object_(wrong.id), wrong.SerializeToString()),
                Write(keys.checkpoints("job-1"), named.encode()),
            ]
            await nodes.state.commit([], writes)
            found, told = await check(nodes)
            assert told.findings == len(found)
            assert {(each.problem, each.object_id, each.node_id) for each in found} == {
                (Finding.PROBLEM_BAD_COPY, spoilt.id, "b"),
                (Finding.PROBLEM_MISSING_COPY, missing.id, "c"),
                (Finding.PROBLEM_UNREADABLE_CHUNK, lost.id, ""),
                *((Finding.PROBLEM_MISSING_COPY, lost.id, name) for name in "abc"),
                (Finding.PROBLEM_TOO_FEW_COPIES, few.id, ""),
                (Finding.PROBLEM_WRONG_MANIFEST, wrong.id, ""),
                (Finding.PROBLEM_MISSING_OBJECT, named, ""),
            }
            assert {each.named_by for each in found} == {"", "checkpoints/job-1"}

    asyncio.run(scenario())


def test_all_findings_are_counted_and_only_so_many_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "_MAX_FINDINGS", 2)

    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            for number in range(5):
                stored = await nodes.put(bytes([number]))
                (nodes.folder / "b/chunks" / path_of(stored)).unlink()
            found, told = await check(nodes)
            assert (len(found), told.findings) == (2, 5)

    asyncio.run(scenario())
