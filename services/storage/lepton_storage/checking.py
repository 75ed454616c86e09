"""`lepton storage fsck`: manifests, chunks and names checked against each other."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from itertools import chain, islice

from lepton_ai.chunking import object_id
from lepton_ai.errors import LeptonError
from lepton_ai.proto.v1.storage_pb2 import (
    CheckStorageResponse,
    CheckSummary,
    Chunk,
    Finding,
    ListChunksResponse,
    Object,
)
from lepton_runtime.state import State
from lepton_storage.chunks import Chunks
from lepton_storage.manifests import Manifests
from lepton_storage.peers import Peers
from lepton_storage.placement import StorageNode, default_replication
from lepton_storage.references import references

__all__ = ["Checker", "Held", "findings", "listed", "summary"]

_MAX_FINDINGS = 1_000
_TELL_S = 5.0
_BATCH = 64


@dataclass
class Held:
    """Chunks that a node has."""

    good: set[bytes] = field(default_factory=set[bytes])
    bad: set[bytes] = field(default_factory=set[bytes])

    def add(self, batch: ListChunksResponse) -> None:
        """Take in more of them."""
        self.good.update(batch.good)
        self.bad.update(batch.bad)


def findings(
    manifests: Sequence[Object], held: Mapping[str, Held], named: Mapping[str, str]
) -> Iterator[Finding]:
    """What is not as it should be.

    Args:
        manifests: All objects.
        held: What each living node has.
        named: What names each object that is named.
    """
    default = default_replication(len(held))
    for manifest in manifests:
        if object_id(manifest.chunks) != manifest.id:
            yield Finding(problem=Finding.PROBLEM_WRONG_MANIFEST, object_id=manifest.id)
        wanted = min(manifest.replication or default, len(held))
        for chunk in manifest.chunks:
            for finding in _of_chunk(chunk, held, wanted):
                finding.object_id = manifest.id
                finding.chunk = chunk.hash
                yield finding
    stored = {manifest.id for manifest in manifests}
    for name, namer in named.items():
        if name not in stored:
            problem = Finding.PROBLEM_MISSING_OBJECT
            yield Finding(problem=problem, object_id=name, named_by=namer)


def summary(
    manifests: Sequence[Object], held: Mapping[str, Held], named: Collection[str]
) -> CheckSummary:
    """Counts of what was looked at, but for findings."""
    chunks = [chunk for manifest in manifests for chunk in manifest.chunks]
    placed = {(node, chunk.hash) for chunk in chunks for node in chunk.nodes}
    copies = sum(chunk in held[node].good for node, chunk in placed if node in held)
    return CheckSummary(
        objects=len(manifests),
        chunks=len({chunk.hash for chunk in chunks}),
        copies=copies,
        unnamed_copies=sum(len(each.good) for each in held.values()) - copies,
        unnamed_objects=sum(manifest.id not in named for manifest in manifests),
    )


async def listed(chunks: Chunks) -> AsyncIterator[ListChunksResponse]:
    """What this node has, read and checked, a batch at a time."""
    hashes = iter(await chunks.hashes())
    while batch := list(islice(hashes, _BATCH)):
        good, bad = await chunks.verify(batch)
        yield ListChunksResponse(good=good, bad=bad)


class Checker:
    """Gathers what there is to compare.

    Args:
        node_id: This node.
        state: Has what names objects.
        chunks: Chunks of this node.
        manifests: All objects.
        holders: Living nodes that have chunks, by id.
        peers: Tells what other nodes have.
    """

    def __init__(
        self,
        *,
        node_id: str,
        state: State,
        chunks: Chunks,
        manifests: Manifests,
        holders: Callable[[], Mapping[str, StorageNode]],
        peers: Peers,
    ) -> None:
        self._node_id = node_id
        self._state = state
        self._chunks = chunks
        self._manifests = manifests
        self._holders = holders
        self._peers = peers

    async def check(self) -> AsyncIterator[CheckStorageResponse]:
        """Progress every few seconds, then findings, then the summary.

        Raises:
            UnavailableError: A node that lives did not answer.
        """
        manifests = await self._manifests.list()
        nodes = self._holders()
        held = {name: Held() for name in nodes}
        gathering = asyncio.create_task(self._gather(nodes, held))
        try:
            while not (await asyncio.wait([gathering], timeout=_TELL_S))[0]:
                so_far = sum(len(each.good) + len(each.bad) for each in held.values())
                yield CheckStorageResponse(copies_so_far=so_far)
            await gathering
        finally:
            gathering.cancel()
        named = await references(self._state)
        told = summary(manifests, held, named)
        for finding in findings(manifests, held, named):
            told.findings += 1
            if told.findings <= _MAX_FINDINGS:
                yield CheckStorageResponse(finding=finding)
        yield CheckStorageResponse(summary=told)

    async def _gather(self, nodes: Mapping[str, StorageNode], held: Mapping[str, Held]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, node in nodes.items():
                    tasks.create_task(self._gather_one(node, held[name]))
        except* LeptonError as errors:
            raise errors.exceptions[0] from None

    async def _gather_one(self, node: StorageNode, into: Held) -> None:
        here = node.id == self._node_id
        batches = listed(self._chunks) if here else self._peers.listed(node)
        async for batch in batches:
            into.add(batch)


def _of_chunk(chunk: Chunk, held: Mapping[str, Held], wanted: int) -> Iterator[Finding]:
    good = [name for name, each in held.items() if chunk.hash in each.good]
    if not good:
        yield Finding(problem=Finding.PROBLEM_UNREADABLE_CHUNK)
    living = [name for name in chunk.nodes if name in held]
    yield from chain.from_iterable(_of_copy(chunk, name, held[name]) for name in living)
    if good and len(living) < wanted:
        yield Finding(problem=Finding.PROBLEM_TOO_FEW_COPIES)


def _of_copy(chunk: Chunk, name: str, held: Held) -> Iterable[Finding]:
    if chunk.hash in held.bad:
        yield Finding(problem=Finding.PROBLEM_BAD_COPY, node_id=name)
    elif chunk.hash not in held.good:
        yield Finding(problem=Finding.PROBLEM_MISSING_COPY, node_id=name)
