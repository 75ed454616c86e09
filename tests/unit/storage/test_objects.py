"""A client checks what nodes send."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from lepton_ai.chunking import CHUNK_BYTES, digest, object_id
from lepton_ai.data_plane import DataPlane
from lepton_ai.errors import DataCorruptError
from lepton_ai.http import HttpAnswer
from lepton_ai.objects import ObjectClient
from lepton_ai.proto.v1.storage_pb2 import Chunk, Object, ObjectPlaces

CONTENT = os.urandom(CHUNK_BYTES + 1)
PARTS = [CONTENT[:CHUNK_BYTES], CONTENT[CHUNK_BYTES:]]


class Nodes:
    """Two nodes that have all chunks, some of which send other bytes than they should."""

    def __init__(self, liars: set[str]) -> None:
        self.liars = liars
        chunks = [
            Chunk(hash=digest(part), size_bytes=len(part), nodes=["a", "b"]) for part in PARTS
        ]
        self.manifest = Object(id=object_id(chunks), size_bytes=len(CONTENT), chunks=chunks)
        self.told = Object()
        self.told.CopyFrom(self.manifest)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        near: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        if path.startswith("/data/objects/"):
            places = ObjectPlaces(object=self.told, addresses={"a": "a", "b": "b"})
            return HttpAnswer(200, {}, bytearray(places.SerializeToString()))
        wanted = bytes.fromhex(path.rpartition("/")[2])
        part = next(part for part in PARTS if digest(part) == wanted)
        if near and near[0] in self.liars:
            part = part[:-1] + bytes([part[-1] ^ 1])
        return HttpAnswer(200, {}, bytearray(part))

    def read(self) -> bytes:
        client = ObjectClient(cast("DataPlane", self))
        return bytes(asyncio.run(client.get_bytes(self.manifest.id)))


def test_a_node_that_lies_is_passed_over() -> None:
    nodes = Nodes(liars={"a"})
    assert all(nodes.read() == CONTENT for _ in range(10))


def test_a_manifest_of_something_else_is_refused() -> None:
    nodes = Nodes(liars=set())
    nodes.told.chunks[0].hash = digest(b"another")
    with pytest.raises(DataCorruptError, match="manifest"):
        nodes.read()
