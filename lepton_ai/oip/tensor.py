"""A named tensor, and its raw bytes on the wire: little-endian, row-major."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.oip.datatypes import numpy_dtype

_LENGTH_BYTES = 4


class Tensor(NamedTuple):
    """One input or output.

    Attributes:
        name: The tensor's name in the model.
        datatype: The protocol's datatype. BF16 elements are held as uint16 bit patterns, BYTES
            elements as `bytes` in an object array.
        array: The elements; its shape is the tensor's.
    """

    name: str
    datatype: str
    array: NDArray[Any]


def decode_raw(
    name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview
) -> Tensor:
    """Read a tensor from its raw bytes. The array shares their memory and is read-only.

    Raises:
        InvalidArgumentError: The datatype does not exist, or the bytes do not hold exactly
            the elements that the shape announces.
    """
    dtype = numpy_dtype(datatype)
    count = math.prod(shape)
    if datatype == "BYTES":
        return Tensor(name, datatype, shaped(name, _decode_elements(name, data, count), shape))
    if len(data) != count * dtype.itemsize:
        raise InvalidArgumentError(
            f"input {name!r} holds {len(data)} bytes",
            hint=f"shape {list(shape)} of {datatype} is {count * dtype.itemsize} bytes",
        )
    try:
        return Tensor(name, datatype, np.ndarray(shape, dtype, data))
    except ValueError:
        raise _too_large(name, shape) from None


def shaped(name: str, elements: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """As many elements as the shape has, in that shape.

    Raises:
        InvalidArgumentError: The shape is none an array can have: beside a size of zero, others
            may be larger than any memory.
    """
    try:
        return elements.reshape(shape)
    except ValueError:
        raise _too_large(name, shape) from None


def encode_raw(tensor: Tensor) -> bytes:
    """The raw bytes of a tensor; every BYTES element is preceded by its length as a uint32."""
    if tensor.datatype == "BYTES":
        return _encode_elements(tensor.array)
    array, dtype = tensor.array, numpy_dtype(tensor.datatype)
    return array.tobytes() if array.dtype is dtype else array.astype(dtype).tobytes()


def to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values of BF16 bit patterns, exactly: BF16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def from_float32(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """BF16 bit patterns nearest to the values, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def _too_large(name: str, shape: tuple[int, ...]) -> InvalidArgumentError:
    return InvalidArgumentError(f"tensor {name!r} has the shape {list(shape)}, too large")


def _decode_elements(name: str, data: bytes | memoryview, count: int) -> NDArray[Any]:
    elements: list[bytes] = []
    position = 0
    while position < len(data):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "little")
        elements.append(bytes(data[start:position]))
    if position != len(data) or len(elements) != count:
        raise InvalidArgumentError(
            f"input {name!r} does not hold the {count} BYTES elements of its shape",
            hint="each element is its length as 4 little-endian bytes, then its bytes",
        )
    array = np.empty(count, object)
    array[:] = elements
    return array


def _encode_elements(array: NDArray[Any]) -> bytes:
    parts: list[bytes] = []
    for element in array.ravel():
        data = element.encode() if isinstance(element, str) else bytes(element)
        parts += (len(data).to_bytes(_LENGTH_BYTES, "little"), data)
    return b"".join(parts)
