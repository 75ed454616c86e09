"""Objects on the cluster's storage, sent and fetched chunk by chunk, several at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from lepton_ai.chunking import (
    CHUNK_BYTES,
    Slice,
    check_object_id,
    digest,
    object_id,
    slices,
    spans,
)
from lepton_ai.data_plane import DataPlane
from lepton_ai.errors import (
    ConflictError,
    DataCorruptError,
    InvalidArgumentError,
    UnavailableError,
)
from lepton_ai.pipeline import in_order
from lepton_ai.proto.v1 import storage_pb2
from lepton_ai.splits import (
    HEADER_LENGTH_BYTES,
    Place,
    arrays_to_split,
    header_length,
    parse_header,
)

__all__ = ["ObjectClient", "Progress"]

# Memory of a transfer: so many chunks of 4 MiB.
_WINDOW = 4
# Chunks may go bad or vanish between two looks, but not each time.
_COMMITS = 3
_READS = 3

Progress = Callable[[int, int], None]
"""Called with the bytes carried so far and in all."""


class ObjectClient:
    """Stores and reads objects.

    Args:
        data: The way to the storage nodes; it stays the caller's to close.
    """

    def __init__(self, data: DataPlane) -> None:
        self._data = data

    async def put_bytes(
        self,
        data: bytes | bytearray | memoryview,
        *,
        replication: int = 0,
        progress: Progress | None = None,
    ) -> storage_pb2.Object:
        """Store `data`; it is on disk on `replication` nodes once this returns.

        What the cluster has already is not sent: an upload that broke off goes on where it was.

        Args:
            data: The content.
            replication: Copies wanted, 1 to 5; 0 for the cluster's default.
            progress: Told how far it is.

        Raises:
            ResourceExhaustedError: It is too large, a quota is used up, or the nodes are full.
            UnavailableError: Too few storage nodes could keep it.
        """
        return await self._put(_Memory(memoryview(data)), replication, progress)

    async def put_file(
        self, path: Path, *, replication: int = 0, progress: Progress | None = None
    ) -> storage_pb2.Object:
        """Store a file's content. Arguments and errors are those of `put_bytes`."""
        with contextlib.closing(_File(path)) as file:
            return await self._put(file, replication, progress)

    async def put_split(
        self,
        name: str,
        arrays: Mapping[str, NDArray[Any]],
        *,
        replication: int = 0,
        progress: Progress | None = None,
    ) -> storage_pb2.Split:
        """Store arrays as a split of a dataset, ready for `CreateDataset`.

        Raises:
            DataError: The arrays cannot be a split; see `lepton_ai.splits.arrays_to_split`.
        """
        split, data = await asyncio.to_thread(arrays_to_split, name, arrays)
        stored = await self.put_bytes(data, replication=replication, progress=progress)
        split.object_id = stored.id
        return split

    async def stat(self, wanted: str) -> storage_pb2.Object:
        """Size, chunks and places of an object.

        Raises:
            NotFoundError: No such object is stored.
        """
        return (await self._places(wanted)).object

    async def get_range(self, wanted: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`.

        Raises:
            InvalidArgumentError: The range is not within the object.
            NotFoundError: No such object is stored.
            DataCorruptError: No node has a good copy of it.
        """
        places = await self._places(wanted)
        parts = slices(places.object.chunks, offset, length)
        async with contextlib.aclosing(self._read(places, parts)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def stream(
        self, wanted: str, *, progress: Progress | None = None
    ) -> AsyncGenerator[memoryview]:
        """The whole object in order, in pieces of at most 4 MiB, each verified here.

        Raises:
            NotFoundError: No such object is stored.
            DataCorruptError: No node has a good copy of it.
        """
        places = await self._places(wanted)
        async with contextlib.aclosing(self._whole(places, progress)) as pieces:
            async for piece in pieces:
                yield piece

    async def get_bytes(self, wanted: str, *, progress: Progress | None = None) -> bytearray:
        """The whole object, every chunk verified here.

        Raises:
            NotFoundError: No such object is stored.
            DataCorruptError: No node has a good copy of it.
        """
        places = await self._places(wanted)
        data = bytearray(places.object.size_bytes)
        position = 0
        async for piece in self._whole(places, progress):
            data[position : position + len(piece)] = piece
            position += len(piece)
        return data

    async def get_to_file(
        self, wanted: str, path: Path, *, progress: Progress | None = None
    ) -> None:
        """Write an object to `path`, which appears only when all of it came and is right.

        Raises:
            NotFoundError: No such object is stored.
            DataCorruptError: No node has a good copy of it.
        """
        places = await self._places(wanted)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with temporary.open("xb") as file:
                async for piece in self._whole(places, progress):
                    await asyncio.to_thread(file.write, piece)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    async def get_rows(
        self, split: storage_pb2.Split, start: int, stop: int
    ) -> dict[str, NDArray[Any]]:
        """Rows `start` up to `stop` of a split, by column; only their bytes are fetched.

        Raises:
            InvalidArgumentError: The split has no such rows.
        """
        if not 0 <= start <= stop <= split.rows:
            raise InvalidArgumentError(
                f"rows {start} to {stop} are not in split {split.name!r}",
                hint=f"it has {split.rows}",
            )
        columns = await self._columns(split.object_id)
        return {
            column.name: await self._rows(split.object_id, columns[column.name], start, stop)
            for column in split.columns
        }

    async def _columns(self, wanted: str) -> dict[str, Place]:
        first = await self.get_range(wanted, 0, HEADER_LENGTH_BYTES)
        header = await self.get_range(wanted, HEADER_LENGTH_BYTES, header_length(first))
        return parse_header(header)

    async def _rows(self, wanted: str, place: Place, start: int, stop: int) -> NDArray[Any]:
        offset = place.offset + start * place.row_bytes
        data = await self.get_range(wanted, offset, (stop - start) * place.row_bytes)
        return place.decode(data)

    async def _put(
        self, source: _Source, replication: int, progress: Progress | None
    ) -> storage_pb2.Object:
        request = storage_pb2.CommitObjectRequest(replication=replication)
        if source.size_bytes <= CHUNK_BYTES:
            request.content = bytes(source.read(0, source.size_bytes))
            stored = (await self._commit(request)).object
            if progress:
                progress(source.size_bytes, source.size_bytes)
            return stored
        request.chunks.extend(await asyncio.to_thread(_chunks_of, source))
        request.expected_id = object_id(request.chunks)
        for _ in range(_COMMITS):
            answer = await self._commit(request)
            if not answer.missing:
                return answer.object
            await self._send(source, request, answer.missing, progress)
        raise ConflictError("chunks vanish as they are stored", hint="try again")

    async def _commit(
        self, request: storage_pb2.CommitObjectRequest
    ) -> storage_pb2.CommitObjectResponse:
        answer = await self._data.request("POST", "/data/objects", request.SerializeToString())
        return storage_pb2.CommitObjectResponse.FromString(bytes(answer.body))

    async def _send(
        self,
        source: _Source,
        request: storage_pb2.CommitObjectRequest,
        missing: Sequence[storage_pb2.MissingChunk],
        progress: Progress | None,
    ) -> None:
        places = dict(
            zip((chunk.hash for chunk in request.chunks), spans(source.size_bytes), strict=True)
        )
        carried = source.size_bytes - sum(
            places[chunk.hash][1] - places[chunk.hash][0] for chunk in missing
        )
        steps = (
            self._send_chunk(source, places[chunk.hash], chunk, request.replication)
            for chunk in missing
        )
        async for sent in in_order(_each(steps), _WINDOW):
            carried += sent
            if progress:
                progress(carried, source.size_bytes)

    async def _send_chunk(
        self,
        source: _Source,
        span: tuple[int, int],
        chunk: storage_pb2.MissingChunk,
        replication: int,
    ) -> int:
        data = await asyncio.to_thread(source.read, *span)
        path = f"/data/chunks/{chunk.hash.hex()}"
        headers = {"lepton-copies": str(replication)}
        await self._data.request("PUT", path, data, near=chunk.addresses, headers=headers)
        return len(data)

    async def _places(self, wanted: str) -> storage_pb2.ObjectPlaces:
        """Where an object's chunks are; the manifest is the one that the id stands for."""
        answer = await self._data.request("GET", f"/data/objects/{check_object_id(wanted)}")
        places = storage_pb2.ObjectPlaces.FromString(bytes(answer.body))
        if object_id(places.object.chunks) != wanted:
            raise DataCorruptError("its manifest is not the one of this object", object=wanted)
        return places

    async def _whole(
        self, places: storage_pb2.ObjectPlaces, progress: Progress | None
    ) -> AsyncGenerator[memoryview]:
        carried, size = 0, places.object.size_bytes
        parts = slices(places.object.chunks, 0, size)
        async with contextlib.aclosing(self._read(places, parts)) as pieces:
            async for piece in pieces:
                yield piece
                carried += len(piece)
                if progress:
                    progress(carried, size)

    def _read(
        self, places: storage_pb2.ObjectPlaces, parts: Iterable[Slice]
    ) -> AsyncGenerator[memoryview]:
        return in_order(_each(self._read_part(places, part) for part in parts), _WINDOW)

    async def _read_part(self, places: storage_pb2.ObjectPlaces, part: Slice) -> memoryview:
        """A part of a chunk from one of the nodes that have it, chosen at random: load spreads."""
        near = [places.addresses[name] for name in part.chunk.nodes if name in places.addresses]
        random.shuffle(near)
        path = f"/data/chunks/{part.chunk.hash.hex()}"
        headers = {} if part.is_whole else {"range": f"bytes={part.start}-{part.stop - 1}"}
        for _ in range(_READS):
            data = (await self._data.request("GET", path, near=near, headers=headers)).body
            if await asyncio.to_thread(_is_right, data, part):
                return memoryview(data)
            # A node verifies what it sends: it came to harm on the way, or that node lies.
            near = near[1:]
        raise DataCorruptError("what came is not the object", chunk=part.chunk.hash.hex())


class _Source(Protocol):
    """Content that can be read again."""

    size_bytes: int

    def read(self, start: int, stop: int) -> bytes | memoryview: ...


class _Memory:
    def __init__(self, data: memoryview) -> None:
        self._data = data.cast("B")
        self.size_bytes = len(self._data)

    def read(self, start: int, stop: int) -> memoryview:
        return self._data[start:stop]


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size_bytes = os.fstat(self._descriptor).st_size

    def read(self, start: int, stop: int) -> bytes:
        data = os.pread(self._descriptor, stop - start, start)
        if len(data) != stop - start:
            raise UnavailableError(f"{self._path} became shorter while it was read")
        return data

    def close(self) -> None:
        os.close(self._descriptor)


def _chunks_of(source: _Source) -> list[storage_pb2.Chunk]:
    return [
        storage_pb2.Chunk(hash=digest(source.read(start, stop)), size_bytes=stop - start)
        for start, stop in spans(source.size_bytes)
    ]


def _is_right(data: bytearray, part: Slice) -> bool:
    if part.is_whole:
        return digest(data) == part.chunk.hash
    return len(data) == part.stop - part.start


async def _each(
    steps: Iterable[Coroutine[Any, Any, Any]],
) -> AsyncIterator[Coroutine[Any, Any, Any]]:
    for step in steps:
        yield step
