"""Cutting objects into chunks and ranges into parts of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_ai import chunking
from lepton_ai.chunking import check_object_id, digest, object_id, slices
from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1.storage_pb2 import Chunk


@given(st.integers(0, 100), st.integers(1, 20))
def test_spans_are_the_content_cut_at_multiples(size: int, chunk_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "CHUNK_BYTES", chunk_bytes)
        cut = chunking.spans(size)
    assert b"".join(bytes(range(size))[start:stop] for start, stop in cut) == bytes(range(size))
    assert all(stop - start == chunk_bytes for start, stop in cut[:-1])
    assert all(0 < stop - start <= chunk_bytes for start, stop in cut)


def test_an_id_stands_for_chunks_in_their_order_and_for_the_size() -> None:
    one, other = Chunk(hash=digest(b"1"), size_bytes=1), Chunk(hash=digest(b"2"), size_bytes=1)
    longer = Chunk(hash=digest(b"1"), size_bytes=2)
    lists = ([], [one], [other], [longer], [one, other], [other, one], [one, one])
    assert len({object_id(chunks) for chunks in lists}) == len(lists)
    assert all(check_object_id(object_id(chunks)) for chunks in lists)
    placed = Chunk(hash=one.hash, size_bytes=1, nodes=["a"])
    assert object_id([placed]) == object_id([one])


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
    assert b"".join(got) == content[offset : offset + length]
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
