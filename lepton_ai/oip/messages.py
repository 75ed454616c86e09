"""gRPC `ModelInfer` without generated code: one raw tensor in, the first raw tensor out.

The protocol's messages are registered in the inference server's process only, where they cannot
meet those of another client library in one descriptor pool. So what a client needs of them is
written here field by field, as https://protobuf.dev/programming-guides/encoding lays down.
"""

from __future__ import annotations

from collections.abc import Iterator

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.oip.tensor import Tensor, decode_raw, encode_raw

__all__ = [
    "INFERENCE_SERVICE",
    "MODEL_INFER",
    "decode_infer_answer",
    "delimited",
    "encode_infer_request",
    "read_varint",
    "varint",
]

INFERENCE_SERVICE = "/inference.GRPCInferenceService/"
MODEL_INFER = f"{INFERENCE_SERVICE}ModelInfer"
# Fields of ModelInferRequest, its InferInputTensor, and ModelInferResponse.
_MODEL_NAME, _INPUTS, _RAW_INPUTS = 1, 5, 7
_TENSOR_NAME, _DATATYPE, _SHAPE = 1, 2, 3
_OUTPUTS, _RAW_OUTPUTS = 5, 6
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def encode_infer_request(model: str, tensor: Tensor) -> bytes:
    """A `ModelInferRequest` for `model` with one input.

    Example:
        >>> import numpy as np
        >>> encode_infer_request("m", Tensor("x", "UINT8", np.zeros((1, 2), np.uint8)))[:3]
        b'\\n\\x01m'
    """
    shape = b"".join(varint(size) for size in tensor.array.shape)
    described = (
        delimited(_TENSOR_NAME, tensor.name.encode())
        + delimited(_DATATYPE, tensor.datatype.encode())
        + delimited(_SHAPE, shape)
    )
    return (
        delimited(_MODEL_NAME, model.encode())
        + delimited(_INPUTS, described)
        + delimited(_RAW_INPUTS, encode_raw(tensor))
    )


def decode_infer_answer(message: bytes) -> Tensor:
    """The first output of a `ModelInferResponse`, which has to be raw.

    Raises:
        InvalidArgumentError: It is no such message.
    """
    try:
        fields = list(_fields(message))
        described = dict(_fields(_first(fields, _OUTPUTS)))
        return decode_raw(
            described[_TENSOR_NAME].decode(),
            described[_DATATYPE].decode(),
            _numbers(described.get(_SHAPE, b"")),
            _first(fields, _RAW_OUTPUTS),
        )
    except (IndexError, KeyError, UnicodeDecodeError):
        raise InvalidArgumentError("the answer is no ModelInferResponse") from None


def _first(fields: list[tuple[int, bytes]], wanted: int) -> bytes:
    return next((content for number, content in fields if number == wanted), b"")


def _numbers(packed: bytes) -> tuple[int, ...]:
    numbers: list[int] = []
    position = 0
    while position < len(packed):
        number, position = read_varint(packed, position)
        numbers.append(number)
    return tuple(numbers)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message; numbers are passed over."""
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        kind = tag & 7
        if kind == _DELIMITED:
            length, position = read_varint(message, position)
            if position + length > len(message):
                raise IndexError
            yield tag >> 3, message[position : position + length]
            position += length
        elif kind == _VARINT:
            _, position = read_varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
        else:
            raise IndexError


def delimited(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | _DELIMITED) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A number of at least 0 as a field's tag or length is written."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(message: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and where it ends.

    Raises:
        IndexError: The message ends within it.
    """
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
