"""A deployed model that answers: arrays go in, arrays come out."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray

from lepton_ai.cluster.transport import HttpPool
from lepton_ai.errors import DataError, NotFoundError, UnavailableError
from lepton_ai.oip import Tensor, datatype_of, numpy_dtype
from lepton_ai.oip.rest import JSON_LENGTH_HEADER, decode_answer, encode_request

__all__ = ["AsyncEndpoint", "as_tensor", "batches_of"]

# What a served model takes in one request unless told otherwise.
_BATCH_ROWS = 64
_TIMEOUT_S = 60.0


class _Input(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


class AsyncEndpoint:
    """A deployment's name on a cluster. Made by `AsyncCluster.endpoint` and `.deploy`."""

    def __init__(self, name: str, pool: HttpPool) -> None:
        self.name = name
        self._pool = pool
        self._path = f"/v2/models/{quote(name, safe='')}"
        self._input: _Input | None = None

    async def predict(self, x: Any, *, timeout_s: float = _TIMEOUT_S) -> NDArray[Any]:
        """What the model makes of raw input.

        Args:
            x: Rows as the model takes them raw; an array or what becomes one. More than 64
                rows travel in several requests.
            timeout_s: For each request, in seconds.

        Returns:
            The model's first output, first axis the rows.

        Raises:
            DataError: There are no rows, or they cannot be made the model's input type.
            InvalidArgumentError: The shape is wrong; the server says what it takes.
            NotFoundError: Nothing of this name is deployed.
            UnavailableError: No replica answers.
        """
        wanted = self._input or await self._described(timeout_s)
        tensor = as_tensor(wanted.name, wanted.datatype, wanted.shape, x)
        parts = [
            await asyncio.to_thread(self._infer, tensor._replace(array=part), timeout_s)
            for part in batches_of(tensor.array, _BATCH_ROWS)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    async def row_shape(self, *, timeout_s: float = _TIMEOUT_S) -> tuple[int, ...]:
        """Shape of one row of raw input.

        Raises:
            NotFoundError: Nothing of this name is deployed.
            UnavailableError: No replica answers.
        """
        return (self._input or await self._described(timeout_s)).shape[1:]

    async def is_ready(self) -> bool:
        """Whether requests are answered now."""
        try:
            await asyncio.to_thread(self._pool.ask, "GET", f"{self._path}/ready")
        except (NotFoundError, UnavailableError):
            return False
        return True

    async def _described(self, timeout_s: float) -> _Input:
        answer = await asyncio.to_thread(self._pool.ask, "GET", self._path, timeout_s=timeout_s)
        form = orjson.loads(answer.body)["inputs"][0]
        self._input = _Input(form["name"], form["datatype"], tuple(map(int, form["shape"])))
        return self._input

    def _infer(self, tensor: Tensor, timeout_s: float) -> NDArray[Any]:
        body, json_length = encode_request([tensor], parameters={})
        headers = {JSON_LENGTH_HEADER: str(json_length), "content-type": "application/octet-stream"}
        answer = self._pool.ask("POST", f"{self._path}/infer", body, headers, timeout_s)
        length = answer.headers.get(JSON_LENGTH_HEADER.lower())
        return decode_answer(answer.body, int(length) if length else None).outputs[0].array


def as_tensor(name: str, datatype: str, shape: tuple[int, ...], x: Any) -> Tensor:
    """Rows as a tensor of the type that a model takes.

    Args:
        name: Of the model's input.
        datatype: Of the model's input, as the protocol names it.
        shape: Of the model's input, -1 where any size will do.
        x: Rows. A last axis of size one, such as the channel of grey images, may be missing.

    Raises:
        DataError: There are no rows, or no lossless way to that type.
    """
    array = np.asarray(x, dtype=object) if datatype == "BYTES" else np.asarray(x)
    if array.ndim == 0 or len(array) == 0:
        raise DataError("there are no rows to predict", hint="give at least one")
    if array.ndim == len(shape) - 1 and shape[-1] == 1:
        array = array[..., np.newaxis]
    if datatype != "BYTES":
        array = _of_type(array, datatype)
    return Tensor(name, datatype, array)


def batches_of(array: NDArray[Any], rows: int) -> list[NDArray[Any]]:
    """`array` in parts of at most `rows` rows."""
    return [array[start : start + rows] for start in range(0, len(array), rows)]


def _of_type(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    dtype = numpy_dtype(datatype)
    if array.dtype == dtype:
        return array
    whole = array.dtype.kind in "biu"
    if dtype.kind == "f" and (whole or array.dtype.kind == "f"):
        return array.astype(dtype)
    if whole and dtype.kind in "iu" and np.array_equal(array, array.astype(dtype)):
        return array.astype(dtype)
    try:
        given = datatype_of(array.dtype)
    except ValueError:
        given = str(array.dtype)
    raise DataError(f"the model takes {datatype}, not {given}", hint="convert the data first")
