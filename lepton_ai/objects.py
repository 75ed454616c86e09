"""Objects on the cluster's storage, sent and fetched as streams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import grpc
from blake3 import blake3
from numpy.typing import NDArray

from lepton_ai.errors import DataCorruptError, InvalidArgumentError
from lepton_ai.proto.v1 import storage_pb2
from lepton_ai.proto.v1.storage_pb2_grpc import StorageServiceStub
from lepton_ai.rpc import translated_errors
from lepton_ai.splits import (
    HEADER_LENGTH_BYTES,
    Place,
    arrays_to_split,
    header_length,
    parse_header,
)

__all__ = ["ObjectClient", "Progress"]

_PART_BYTES = 1024 * 1024
_CALL_S = 10.0
# A transfer may take as long as this many bytes a second make it, and never less than a minute.
_SLOWEST_BYTES_PER_S = 1024 * 1024
_LEAST_TRANSFER_S = 60.0

Progress = Callable[[int, int], None]
"""Called with the bytes carried so far and in all (-1 while that is unknown)."""


class ObjectClient:
    """Stores and reads objects through any endpoint of `StorageService`.

    Args:
        channel: To the gateway or to a storage node; it stays the caller's to close.

    Example:
        >>> client = ObjectClient(open_channel("127.0.0.1:8080", key))  # doctest: +SKIP
        >>> stored = await client.put_bytes(b"hello")  # doctest: +SKIP
        >>> await client.get_bytes(stored.id)  # doctest: +SKIP
        b'hello'
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = StorageServiceStub(channel)

    async def put_bytes(
        self, data: bytes, *, replication: int = 0, progress: Progress | None = None
    ) -> storage_pb2.Object:
        """Store `data`; it is on disk on `replication` nodes once this returns.

        Args:
            data: The content.
            replication: Copies wanted, 1 to 5; 0 for the cluster's default.
            progress: Told how far it is.

        Raises:
            ResourceExhaustedError: It is too large or the nodes are full.
            UnavailableError: Too few storage nodes could keep it.
        """
        return await self._put(_parts_of(data), len(data), replication, progress)

    async def put_file(
        self, path: Path, *, replication: int = 0, progress: Progress | None = None
    ) -> storage_pb2.Object:
        """Store a file's content. Arguments and errors are those of `put_bytes`."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return await self._put(_parts_of_file(file), size, replication, progress)

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

    async def stat(self, object_id: str) -> storage_pb2.Object:
        """Size, chunks and places of an object.

        Raises:
            NotFoundError: No such object is stored.
        """
        request = storage_pb2.StatObjectRequest(id=object_id)
        async with translated_errors():
            return (await self._stub.StatObject(request, timeout=_CALL_S)).object

    async def get_range(self, object_id: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, verified by the storage node.

        Raises:
            InvalidArgumentError: The range is not within the object.
            NotFoundError: No such object is stored.
        """
        if length == 0:
            return b""
        request = storage_pb2.GetObjectRequest(id=object_id, offset=offset, length=length)
        data = b"".join([part async for part in self._stream(request, length)])
        if len(data) != length:
            raise DataCorruptError(f"{len(data)} of {length} bytes came", object=object_id)
        return data

    async def get_bytes(self, object_id: str, *, progress: Progress | None = None) -> bytes:
        """The whole object, verified here against its id.

        Raises:
            NotFoundError: No such object is stored.
            DataCorruptError: What came is not the object.
        """
        data = bytearray()
        async for part in self._whole(object_id, progress):
            data += part
        return bytes(data)

    async def get_to_file(
        self, object_id: str, path: Path, *, progress: Progress | None = None
    ) -> None:
        """Write an object to `path`, which appears only when all of it came and is right.

        Raises:
            NotFoundError: No such object is stored.
            DataCorruptError: What came is not the object.
        """
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with temporary.open("xb") as file:
                async for part in self._whole(object_id, progress):
                    await asyncio.to_thread(file.write, part)
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
        places = await self._places(split.object_id)
        return {
            column.name: await self._rows(split.object_id, places[column.name], start, stop)
            for column in split.columns
        }

    async def _places(self, object_id: str) -> dict[str, Place]:
        first = await self.get_range(object_id, 0, HEADER_LENGTH_BYTES)
        header = await self.get_range(object_id, HEADER_LENGTH_BYTES, header_length(first))
        return parse_header(header)

    async def _rows(self, object_id: str, place: Place, start: int, stop: int) -> NDArray[Any]:
        offset = place.offset + start * place.row_bytes
        data = await self.get_range(object_id, offset, (stop - start) * place.row_bytes)
        return place.decode(data)

    async def _put(
        self,
        parts: AsyncIterator[bytes],
        size_bytes: int,
        replication: int,
        progress: Progress | None,
    ) -> storage_pb2.Object:
        header = storage_pb2.PutObjectHeader(size_bytes=size_bytes, replication=replication)
        requests = _requests(header, parts, progress)
        async with translated_errors():
            answer = await self._stub.PutObject(requests, timeout=_transfer_s(size_bytes))
        return answer.object

    async def _whole(self, object_id: str, progress: Progress | None) -> AsyncIterator[bytes]:
        size = (await self.stat(object_id)).size_bytes
        seen, carried = blake3(), 0
        request = storage_pb2.GetObjectRequest(id=object_id)
        async for part in self._stream(request, size):
            seen.update(part)
            carried += len(part)
            if progress:
                progress(carried, size)
            yield part
        if f"b3-{seen.hexdigest()}" != object_id:
            raise DataCorruptError("what came is not the object", object=object_id)

    async def _stream(
        self, request: storage_pb2.GetObjectRequest, size_bytes: int
    ) -> AsyncGenerator[bytes]:
        async with translated_errors():
            call = self._stub.GetObject(request, timeout=_transfer_s(size_bytes))
            with contextlib.closing(_Ended(call)):
                async for answer in call:
                    yield answer.data


class _Ended:
    """Ends a call that its reader left early; no effect on one that has ended."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def close(self) -> None:
        self._call.cancel()


async def _requests(
    header: storage_pb2.PutObjectHeader, parts: AsyncIterator[bytes], progress: Progress | None
) -> AsyncIterator[storage_pb2.PutObjectRequest]:
    yield storage_pb2.PutObjectRequest(header=header)
    carried = 0
    async for part in parts:
        yield storage_pb2.PutObjectRequest(data=part)
        carried += len(part)
        if progress:
            progress(carried, header.size_bytes)


async def _parts_of(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _PART_BYTES):
        yield data[start : start + _PART_BYTES]


async def _parts_of_file(file: BinaryIO) -> AsyncIterator[bytes]:
    while part := await asyncio.to_thread(file.read, _PART_BYTES):
        yield part


def _transfer_s(size_bytes: int) -> float:
    return max(_LEAST_TRANSFER_S, size_bytes / _SLOWEST_BYTES_PER_S)
