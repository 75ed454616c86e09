"""Inference requests and answers in REST: JSON, with or without binary tensors behind it.

A body is a JSON document, optionally followed by the raw bytes of the tensors that say so with
`binary_data_size`, in the order of their appearance. The header
`Inference-Header-Content-Length` then gives the length of the JSON part.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.oip.datatypes import numpy_dtype
from lepton_ai.oip.tensor import (
    Tensor,
    decode_raw,
    encode_raw,
    from_float32,
    shaped,
    to_float32,
)

JSON_LENGTH_HEADER = "inference-header-content-length"
_REMEMBERED_BYTES = 1024

# `struct` refuses what does not fit (a text or null among numbers, a fraction among integers, a
# number out of range) where NumPy would convert it silently, and packs faster than NumPy.
_STRUCT_CODE = {
    "BOOL": "b",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "BF16": "f",
    "FP32": "f",
    "FP64": "d",
}


class WantedOutput(NamedTuple):
    """An output that a request asks for by name, and whether it should come as raw bytes."""

    name: str
    binary: bool


class InferenceRequest(NamedTuple):
    """What one request says, whichever way it came.

    Attributes:
        inputs: The tensors sent.
        outputs: The outputs asked for; empty for all of the model's. Requests may share it.
        request_id: The client's own id, to be echoed; may be empty.
        binary: Whether outputs that do not say otherwise are wanted as raw bytes.
        timeout_us: Microseconds the client will wait; 0 for no limit.
        priority: 1 is most urgent; 0 is the default level.
    """

    inputs: list[Tensor]
    outputs: Sequence[WantedOutput]
    request_id: str = ""
    binary: bool = False
    timeout_us: int = 0
    priority: int = 0


class Answer(NamedTuple):
    """What a model made of a request.

    Attributes:
        model_name: The model that answered.
        model_version: Its version, in decimal.
        request_id: The id of the request.
        outputs: The tensors, in the order asked for.
    """

    model_name: str
    model_version: str
    request_id: str
    outputs: list[Tensor]


def decode_request(body: bytes, json_length: int | None = None) -> InferenceRequest:
    """Read a request.

    Args:
        body: The whole, uncompressed body.
        json_length: Length of its JSON part in bytes; None when it is all of the body.

    Raises:
        InvalidArgumentError: Names the field that is missing or wrong, and what it should be.
    """
    if json_length is not None and json_length <= _REMEMBERED_BYTES:
        head = _remembered(body[:json_length], json_length)
    else:
        head = _head(body, json_length)
    position = len(body) if json_length is None else json_length
    inputs: list[Tensor] = []
    for form in head.inputs:
        tensor, position = _decode_tensor(form, body, position)
        inputs.append(tensor)
    if position != len(body):
        raise InvalidArgumentError(
            f"{len(body) - position} bytes follow the last tensor",
            hint="every binary tensor says its length in the parameter 'binary_data_size'",
        )
    return InferenceRequest(inputs, head.outputs, *head.rest)


def encode_answer(answer: Answer, binary: Sequence[bool]) -> tuple[bytes, int | None]:
    """Write an answer.

    Args:
        answer: What to send.
        binary: For each output whether it is sent as raw bytes.

    Returns:
        The body, and the length of its JSON part when raw bytes follow it.
    """
    model_name, model_version, request_id, outputs = answer
    if all(binary):
        buffers = [encode_raw(tensor) for tensor in outputs]
        sizes = tuple(
            [
                (name, datatype, array.shape, len(buffer))
                for (name, datatype, array), buffer in zip(outputs, buffers, strict=True)
            ]
        )
        head = _raw_head(model_name, model_version, sizes)
    else:
        buffers = []
        specs: list[dict[str, Any]] = []
        for tensor, raw in zip(outputs, binary, strict=True):
            spec: dict[str, Any] = {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": tensor.array.shape,
            }
            if raw:
                buffers.append(encode_raw(tensor))
                spec["parameters"] = {"binary_data_size": len(buffers[-1])}
            else:
                spec["data"] = _json_elements(tensor)
            specs.append(spec)
        head = _answer_head(model_name, model_version, specs)
    if request_id:
        head = b'%b,"id":%b}' % (head[:-1], orjson.dumps(request_id))
    return (b"".join((head, *buffers)), len(head)) if buffers else (head, None)


# Without the request's id, which the client chooses: it may be new each time, and of any length.
@lru_cache(256)
def _raw_head(
    model_name: str, model_version: str, sizes: tuple[tuple[str, str, tuple[int, ...], int], ...]
) -> bytes:
    """What stands before outputs that are all raw: the same for many answers of a model."""
    outputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": size_bytes},
        }
        for name, datatype, shape, size_bytes in sizes
    ]
    return _answer_head(model_name, model_version, outputs)


def _answer_head(model_name: str, model_version: str, outputs: list[dict[str, Any]]) -> bytes:
    document = {"model_name": model_name, "model_version": model_version, "outputs": outputs}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_request(
    inputs: Sequence[Tensor], *, outputs: Sequence[str] = (), parameters: dict[str, Any]
) -> tuple[bytes, int]:
    """Write a request with all tensors as raw bytes, asking for raw bytes back.

    Args:
        inputs: The tensors to send.
        outputs: Names of the outputs wanted; empty for all.
        parameters: Parameters of the request, such as ``{"timeout": 500_000}`` (microseconds).

    Returns:
        The body, and the length of its JSON part for the `JSON_LENGTH_HEADER`.
    """
    buffers = [encode_raw(tensor) for tensor in inputs]
    document = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": tensor.array.shape,
                "parameters": {"binary_data_size": len(buffer)},
            }
            for tensor, buffer in zip(inputs, buffers, strict=True)
        ],
        "outputs": [{"name": name} for name in outputs],
        "parameters": {"binary_data_output": True, **parameters},
    }
    head = orjson.dumps(document)
    return b"".join((head, *buffers)), len(head)


def decode_answer(body: bytes, json_length: int | None = None) -> Answer:
    """Read an answer: what `encode_answer` writes.

    Raises:
        InvalidArgumentError: The body is not an answer of the protocol.
    """
    document = _parse(body, json_length)
    position = len(body) if json_length is None else json_length
    outputs: list[Tensor] = []
    for spec in _sequence(document, "outputs"):
        tensor, position = _decode_tensor(_form(spec), body, position)
        outputs.append(tensor)
    return Answer(
        _text(document, "model_name"),
        _text(document, "model_version"),
        _text(document, "id"),
        outputs,
    )


def whole_number(parameters: dict[str, Any], name: str) -> int:
    """A parameter that counts something; 0 when it is absent.

    Raises:
        InvalidArgumentError: It is there, but not a whole number of at least 0.
    """
    value = parameters.get(name, 0)
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise InvalidArgumentError(
        f"parameter {name!r} is {value!r}", hint="it has to be a whole number of at least 0"
    )


class _Form(NamedTuple):
    """What a document says of a tensor: its elements, or how many bytes they take behind it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size_bytes: int | None
    elements: Any


class _Head(NamedTuple):
    """What the document of a request says."""

    inputs: tuple[_Form, ...]
    outputs: tuple[WantedOutput, ...]
    # Id, whether outputs come as raw bytes, timeout and priority: as in `InferenceRequest`.
    rest: tuple[str, bool, int, int]


def _head(body: bytes, json_length: int | None) -> _Head:
    document = _parse(body, json_length)
    parameters = _mapping(document, "parameters")
    binary = parameters.get("binary_data_output", False) is True
    return _Head(
        tuple(_form(spec) for spec in _sequence(document, "inputs")),
        tuple(_wanted(spec, binary) for spec in _sequence(document, "outputs")),
        (
            _text(document, "id"),
            binary,
            whole_number(parameters, "timeout"),
            whole_number(parameters, "priority"),
        ),
    )


# A client that sends raw bytes sends the same document before them again and again.
_remembered = lru_cache(256)(_head)


def _parse(body: bytes, json_length: int | None) -> dict[str, Any]:
    if json_length is not None and not 0 < json_length <= len(body):
        raise InvalidArgumentError(
            f"{JSON_LENGTH_HEADER} is {json_length}", hint=f"the body has {len(body)} bytes"
        )
    try:
        document = orjson.loads(body if json_length is None else memoryview(body)[:json_length])
    except orjson.JSONDecodeError as error:
        raise InvalidArgumentError(f"the body is not JSON: {error.msg}") from None
    if not isinstance(document, dict):
        raise InvalidArgumentError("the body is not a JSON object")
    return cast("dict[str, Any]", document)


def _form(spec: Any) -> _Form:
    if not isinstance(spec, dict):
        raise InvalidArgumentError("a tensor is not a JSON object")
    fields = cast("dict[str, Any]", spec)
    name = _text(fields, "name")
    shape = _shape(name, fields.get("shape"))
    datatype = _text(fields, "datatype")
    size_bytes = _mapping(fields, "parameters").get("binary_data_size")
    return _Form(name, datatype, shape, size_bytes, fields.get("data"))


def _decode_tensor(form: _Form, body: bytes, position: int) -> tuple[Tensor, int]:
    name, datatype, shape, size_bytes, elements = form
    if size_bytes is None:
        return _tensor_of_elements(name, datatype, shape, elements), position
    if type(size_bytes) is not int or not 0 <= size_bytes <= len(body) - position:
        raise InvalidArgumentError(
            f"'binary_data_size' of {name!r} is {size_bytes!r}",
            hint=f"{len(body) - position} bytes are left in the body",
        )
    end = position + size_bytes
    return decode_raw(name, datatype, shape, memoryview(body)[position:end]), end


def _tensor_of_elements(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
    dtype = numpy_dtype(datatype)
    if not isinstance(data, list):
        raise InvalidArgumentError(
            f"tensor {name!r} has no elements", hint="give 'data', or 'binary_data_size'"
        )
    elements = _flatten(name, cast("list[Any]", data), shape)
    if len(elements) != math.prod(shape):
        raise InvalidArgumentError(
            f"tensor {name!r} has {len(elements)} elements",
            hint=f"its shape {list(shape)} needs {math.prod(shape)}",
        )
    if datatype == "BYTES":
        return Tensor(name, datatype, shaped(name, _bytes_elements(name, elements), shape))
    try:
        packed = struct.pack(f"<{len(elements)}{_STRUCT_CODE[datatype]}", *elements)
    except (struct.error, OverflowError) as error:
        raise InvalidArgumentError(
            f"tensor {name!r} has an element that is no {datatype}: {error}"
        ) from None
    array = _from_packed(name, datatype, packed, dtype)
    return Tensor(name, datatype, shaped(name, array, shape))


def _from_packed(name: str, datatype: str, packed: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    if datatype == "BF16":
        return from_float32(np.frombuffer(packed, "<f4"))
    if datatype == "BOOL" and packed.strip(b"\0\1"):
        raise InvalidArgumentError(f"tensor {name!r} has an element that is neither true nor false")
    return np.frombuffer(packed, dtype)


def _flatten(name: str, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    for length in shape[1:]:
        if not data or type(data[0]) is not list:
            break
        if any(type(row) is not list or len(row) != length for row in data):
            raise InvalidArgumentError(
                f"the nested lists of tensor {name!r} do not have its shape {list(shape)}"
            )
        data = list(chain.from_iterable(data))
    return data


def _bytes_elements(name: str, elements: list[Any]) -> NDArray[Any]:
    if not all(isinstance(element, str) for element in elements):
        raise InvalidArgumentError(f"tensor {name!r} has an element that is not a text")
    array = np.empty(len(elements), object)
    array[:] = [element.encode() for element in elements]
    return array


def _json_elements(tensor: Tensor) -> Any:
    flat = tensor.array.ravel()
    if tensor.datatype == "BF16":
        return to_float32(flat)
    if tensor.datatype != "BYTES":
        return flat
    try:
        return [element.decode() if isinstance(element, bytes) else element for element in flat]
    except UnicodeDecodeError:
        raise InvalidArgumentError(
            f"output {tensor.name!r} holds bytes that are no text",
            hint="ask for it with the parameter 'binary_data'",
        ) from None


def _wanted(spec: Any, binary: bool) -> WantedOutput:
    if not isinstance(spec, dict):
        raise InvalidArgumentError("an output is not a JSON object")
    fields = cast("dict[str, Any]", spec)
    chosen = _mapping(fields, "parameters").get("binary_data", binary)
    return WantedOutput(_text(fields, "name"), chosen is True)


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    if isinstance(shape, list):
        sizes = cast("list[Any]", shape)
        if all(type(size) is int and size >= 0 for size in sizes):
            return tuple(sizes)
    raise InvalidArgumentError(
        f"tensor {name!r} has shape {shape!r}", hint="a list of whole numbers is needed"
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:  # as some servers write what they do not say
        return ""
    if isinstance(value, str):
        return value
    raise InvalidArgumentError(f"field {name!r} is {value!r}", hint="it has to be a text")


def _mapping(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name) or {}
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    raise InvalidArgumentError(f"field {name!r} is {value!r}", hint="it has to be an object")


def _sequence(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields.get(name) or []
    if isinstance(value, list):
        return cast("list[Any]", value)
    raise InvalidArgumentError(f"field {name!r} is {value!r}", hint="it has to be a list")
