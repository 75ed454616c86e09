"""Cutting objects into chunks and ranges into parts of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1.storage_pb2 import Chunk
from lepton_storage import chunking
from lepton_storage.chunking import Chunker, check_object_id, digest, slices


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_chunks_are_the_content_cut_at_multiples(parts: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "CHUNK_BYTES", 16)
        chunker = Chunker()
        chunks = [chunk for part in parts for chunk in chunker.add(part)]
        chunks += chunker.rest()
    assert b"".join(chunks) == b"".join(parts)
    assert all(len(chunk) == 16 for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= 16 for chunk in chunks)


@given(st.data())
def test_slices_are_the_range(data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=6))
    content = b"".join(pieces)
    offset = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - offset))
    chunks = [Chunk(hash=digest(piece), size_bytes=len(piece)) for piece in pieces]
    by_hash = {digest(piece): piece for piece in pieces}
    got = [
        by_hash[part.chunk.hash][part.start : part.stop] for part in slices(chunks, offset, length)
    ]
    assert b"".join(got) == (content[offset : offset + length] if length else content[offset:])
    assert all(got)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, 11), (11, 0), (5, 6)])
def test_ranges_outside_are_refused(offset: int, length: int) -> None:
    with pytest.raises(InvalidArgumentError, match="10 bytes"):
        slices([Chunk(size_bytes=10)], offset, length)


@pytest.mark.parametrize(
    "bad",
    ["", "b3-", "b3-" + "g" * 64, "b3-" + "0" * 63, "../" + "0" * 64, "b3-" + "0" * 64 + "\n"],
)
def test_what_is_no_id_is_refused(bad: str) -> None:
    with pytest.raises(InvalidArgumentError):
        check_object_id(bad)
