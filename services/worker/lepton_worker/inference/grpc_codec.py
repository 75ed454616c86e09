"""`ModelInfer` as messages: what a request says, and an answer's bytes.

Most of what a client sends is the same again and again: names, datatypes and shapes. So the bytes
before the raw tensors are looked up, and no object of protobuf is made for a request whose like
came before. Fields are told apart as https://protobuf.dev/programming-guides/encoding lays down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

import numpy as np

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.oip import Tensor, decode_raw, encode_raw, numpy_dtype, shaped
from lepton_ai.oip.messages import delimited, read_varint
from lepton_ai.oip.rest import Answer, InferenceRequest, WantedOutput
from lepton_runtime.oip import grpc_service_pb2 as pb

__all__ = ["Head", "encode_answer", "make_request", "read_request"]

# Tags of length-delimited fields: `raw_input_contents` of a request, `raw_output_contents` of an
# answer. Every field of a request's message but one is length-delimited, and none takes more
# than one byte.
_RAW_INPUT: Final = 7 << 3 | 2
_RAW_OUTPUT: Final = 6
_ANSWER_ID: Final = 3
_DELIMITED: Final = 2
_REMEMBERED_BYTES: Final = 4096
_CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Form(NamedTuple):
    """What a message says of a raw tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Head(NamedTuple):
    """What a request's message says beside its raw tensors.

    Attributes:
        model_name: The model asked.
        model_version: The version asked; empty for the latest.
        raw: The tensors whose elements come raw.
        typed: The tensors, where elements come in fields of their type.
        outputs: The outputs asked for; empty for all of the model's.
        request_id: The client's own id.
        timeout_us: As in `InferenceRequest`.
        priority: As in `InferenceRequest`.
    """

    model_name: str
    model_version: str
    raw: tuple[Form, ...]
    typed: tuple[Tensor, ...]
    outputs: tuple[WantedOutput, ...]
    request_id: str
    timeout_us: int
    priority: int


Raw = Sequence[bytes | memoryview]


def read_request(body: bytes) -> tuple[Head, Raw]:
    """What a `ModelInferRequest` says, and the elements of its raw tensors.

    Raises:
        DecodeError: It is no such message.
        InvalidArgumentError: Names what is wrong with it and what is allowed.
    """
    start, raw = _split(body)
    if raw and start <= _REMEMBERED_BYTES:
        return _remembered(body[:start]), raw
    message = pb.ModelInferRequest.FromString(body)
    contents = tuple(message.raw_input_contents)
    return _raw_head(message) if contents else _typed_head(message), contents


def make_request(head: Head, raw: Raw) -> InferenceRequest:
    """The request of a message.

    Raises:
        InvalidArgumentError: The raw elements do not fit what the message says of them.
    """
    if len(raw) != len(head.raw):
        raise InvalidArgumentError(
            f"raw_input_contents has {len(raw)} entries",
            hint=f"{len(head.raw)} inputs need one each",
        )
    inputs = [decode_raw(*form, data) for form, data in zip(head.raw, raw, strict=True)]
    inputs.extend(head.typed)
    return InferenceRequest(
        inputs, head.outputs, head.request_id, True, head.timeout_us, head.priority
    )


def encode_answer(answer: Answer) -> bytes:
    """The message of an answer, all outputs as raw bytes."""
    forms = tuple(Form(name, datatype, array.shape) for name, datatype, array in answer.outputs)
    parts = [_answer_head(answer.model_name, answer.model_version, forms)]
    if answer.request_id:
        parts.append(delimited(_ANSWER_ID, answer.request_id.encode()))
    parts += [delimited(_RAW_OUTPUT, encode_raw(tensor)) for tensor in answer.outputs]
    return b"".join(parts)


def _split(body: bytes) -> tuple[int, list[memoryview]]:
    """Where raw tensors begin, and each of them; none unless the message ends with them.

    What cannot be read has none, too: to say what is wrong with it is protobuf's business.
    """
    view = memoryview(body)
    raw: list[memoryview] = []
    start = position = 0
    size = len(body)
    try:
        while position < size:
            tag = body[position]
            if tag & 7 != _DELIMITED or tag > 0x7F or (raw and tag != _RAW_INPUT):
                return 0, []
            length, content = read_varint(body, position + 1)
            end = content + length
            if tag == _RAW_INPUT:
                start = start if raw else position
                raw.append(view[content:end])
            position = end
    except IndexError:
        return 0, []
    return (start, raw) if position == size else (0, [])


@lru_cache(256)
def _remembered(body: bytes) -> Head:
    return _raw_head(pb.ModelInferRequest.FromString(body))


def _raw_head(message: pb.ModelInferRequest) -> Head:
    for tensor in message.inputs:
        if tensor.HasField("contents"):
            raise InvalidArgumentError(
                f"input {tensor.name!r} has typed contents beside raw_input_contents",
                hint="use one of the two",
            )
    forms = [Form(tensor.name, tensor.datatype, _shape(tensor)) for tensor in message.inputs]
    return _head(message, tuple(forms), ())


def _typed_head(message: pb.ModelInferRequest) -> Head:
    return _head(message, (), tuple(_typed_input(tensor) for tensor in message.inputs))


def _head(message: pb.ModelInferRequest, raw: tuple[Form, ...], typed: tuple[Tensor, ...]) -> Head:
    return Head(
        message.model_name,
        message.model_version,
        raw,
        typed,
        tuple(WantedOutput(output.name, binary=True) for output in message.outputs),
        message.id,
        _whole_number(message, "timeout"),
        _whole_number(message, "priority"),
    )


# Without the request's id, which the client chooses: it may be new each time, and of any length.
@lru_cache(256)
def _answer_head(model_name: str, model_version: str, forms: tuple[Form, ...]) -> bytes:
    message = pb.ModelInferResponse(model_name=model_name, model_version=model_version)
    for name, datatype, shape in forms:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    return message.SerializeToString()


def _typed_input(tensor: pb.ModelInferRequest.InferInputTensor) -> Tensor:
    dtype = numpy_dtype(tensor.datatype)
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise InvalidArgumentError(
            f"input {tensor.name!r} of {tensor.datatype} has no typed contents",
            hint="send it in raw_input_contents",
        )
    elements = cast("list[Any]", getattr(tensor.contents, field))
    shape = _shape(tensor)
    if len(elements) != math.prod(shape):
        raise InvalidArgumentError(
            f"input {tensor.name!r} has {len(elements)} elements in {field}",
            hint=f"shape {list(shape)} needs {math.prod(shape)}",
        )
    try:
        array = np.array(elements, dtype)
    except OverflowError:
        raise InvalidArgumentError(
            f"input {tensor.name!r} has an element that is no {tensor.datatype}"
        ) from None
    return Tensor(tensor.name, tensor.datatype, shaped(tensor.name, array, shape))


def _shape(tensor: pb.ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    if any(size < 0 for size in shape):
        raise InvalidArgumentError(
            f"input {tensor.name!r} has shape {list(shape)}", hint="sizes are at least 0"
        )
    return shape


def _whole_number(message: pb.ModelInferRequest, name: str) -> int:
    if name not in message.parameters:
        return 0
    parameter = message.parameters[name]
    value = getattr(parameter, parameter.WhichOneof("parameter_choice") or "int64_param")
    if type(value) is int and value >= 0:
        return value
    raise InvalidArgumentError(
        f"parameter {name!r} is {value!r}", hint="it has to be a whole number of at least 0"
    )
