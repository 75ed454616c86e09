"""The REST encoding of requests and answers: what goes in comes out, and nothing is guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.oip import Tensor, datatype_of, decode_raw, from_float32, numpy_dtype, to_float32
from lepton_ai.oip.rest import (
    Answer,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)

NUMERIC = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
FLOATING = ["FP16", "FP32", "FP64"]


@st.composite
def tensors(draw: st.DrawFn, *, finite: bool = False) -> Tensor:
    datatype = draw(st.sampled_from([*NUMERIC, *FLOATING, "BYTES", "BF16"]))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if datatype == "BYTES":
        elements = st.binary(max_size=8) if not finite else st.text(max_size=8).map(str.encode)
        array = draw(hnp.arrays(object, shape, elements=elements, fill=st.nothing()))
    elif datatype == "BF16":
        values = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.5, -2.0])))
        array = from_float32(values)
    else:
        options = {"allow_nan": False, "allow_infinity": False} if finite else {}
        dtype = numpy_dtype(datatype)
        kind = {} if dtype.kind != "f" else options
        array = draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **kind)))
    return Tensor("t", datatype, array)


def assert_same(left: Tensor, right: Tensor) -> None:
    assert (left.name, left.datatype) == (right.name, right.datatype)
    assert left.array.shape == right.array.shape
    np.testing.assert_array_equal(left.array, right.array)


@given(st.lists(tensors(), min_size=1, max_size=3))
def test_binary_requests_come_out_as_they_went_in(inputs: list[Tensor]) -> None:
    body, json_length = encode_request(inputs, outputs=["y"], parameters={"timeout": 250})
    request = decode_request(body, json_length)
    for sent, received in zip(inputs, request.inputs, strict=True):
        assert_same(sent, received)
    assert request.timeout_us == 250
    assert [(output.name, output.binary) for output in request.outputs] == [("y", True)]


@given(st.lists(tensors(finite=True), max_size=3), st.booleans())
def test_answers_come_out_as_they_went_in(outputs: list[Tensor], binary: bool) -> None:
    sent = Answer("m", "3", "id-1", outputs)
    received = decode_answer(*encode_answer(sent, [binary] * len(outputs)))
    assert received[:3] == sent[:3]
    for left, right in zip(sent.outputs, received.outputs, strict=True):
        assert_same(left, right)


def json_request(**fields: Any) -> bytes:
    spec = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    return orjson.dumps({"inputs": [spec | fields]})


def test_data_may_be_flat_or_nested() -> None:
    for data in ([1, 2.5, 3, 4], [[1, 2.5], [3, 4]]):
        array = decode_request(json_request(data=data)).inputs[0].array
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, [[1, 2.5], [3, 4]])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data": [1, 2, 3]}, "3 elements: its shape [2, 2] needs 4"),
        ({"data": [[1], [2, 3, 4]]}, "do not have its shape [2, 2]"),
        ({"data": [[1, 2], 3, 4]}, "do not have its shape [2, 2]"),
        ({"data": [1, 2, 3, "4"]}, "no FP32"),
        ({"data": [1, 2, 3, None]}, "no FP32"),
        ({"data": [1, 2, 3, 1e300]}, "no FP32"),
        ({"data": None}, "'data', or 'binary_data_size'"),
        ({"datatype": "INT32", "data": [1, 2, 3, 4.5]}, "no INT32"),
        ({"datatype": "UINT8", "data": [1, 2, 3, 256]}, "no UINT8"),
        ({"datatype": "BOOL", "data": [1, 0, 2, 0]}, "neither true nor false"),
        ({"datatype": "BYTES", "data": ["a", "b", "c", 4]}, "not a text"),
        ({"datatype": "FLOAT32"}, "'FLOAT32' does not exist"),
        ({"datatype": "fp32"}, "did you mean 'FP32'?"),
        ({"shape": [2, -2]}, "[2, -2]: a list of whole numbers"),
        ({"shape": None}, "a list of whole numbers"),
        ({"name": 7}, "'name' is 7"),
        ({"parameters": {"binary_data_size": 16}}, "0 bytes are left"),
    ],
)
def test_wrong_tensors_are_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        decode_request(json_request(**fields))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("body", "json_length", "words"),
    [
        (b"{", None, "not JSON"),
        (b"[]", None, "not a JSON object"),
        (b"{}", 3, "the body has 2 bytes"),
        (b'{"inputs": 3}', None, "'inputs' is 3"),
        (b'{"inputs": [3]}', None, "a tensor is not a JSON object"),
        (b'{"outputs": ["y"]}', None, "an output is not a JSON object"),
        (b'{"parameters": {"timeout": -1}}', None, "'timeout' is -1"),
        (b'{"parameters": {"priority": 1.5}}', None, "'priority' is 1.5"),
        (b"{}rest", 2, "4 bytes follow the last tensor"),
    ],
)
def test_wrong_documents_are_named(body: bytes, json_length: int | None, words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        decode_request(body, json_length)
    assert words in str(caught.value)


@given(st.binary(max_size=64), st.integers(-1, 70))
def test_no_body_breaks_the_decoder(body: bytes, json_length: int) -> None:
    try:
        decode_request(body, json_length)
    except InvalidArgumentError:
        return


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
TENSOR_FIELDS = {
    "name": st.just("x") | ANYTHING,
    "datatype": st.sampled_from([*NUMERIC, *FLOATING, "BYTES", "BF16"]) | ANYTHING,
    "shape": st.lists(st.integers(-1, 2**62), max_size=4) | ANYTHING,
    "data": st.lists(st.integers(0, 1), max_size=4) | ANYTHING,
}


@given(st.fixed_dictionaries({}, optional=TENSOR_FIELDS))
def test_no_tensor_breaks_the_decoder(spec: dict[str, Any]) -> None:
    try:
        decode_request(orjson.dumps({"inputs": [spec]}))
    except InvalidArgumentError:
        return


@given(st.lists(st.sampled_from([0, 1, 2, 2**31, 2**62]), max_size=4), st.binary(max_size=16))
def test_no_shape_breaks_the_raw_decoder(shape: list[int], data: bytes) -> None:
    for datatype in ("FP32", "BYTES"):
        try:
            decode_raw("x", datatype, tuple(shape), data)
        except InvalidArgumentError:
            continue


def test_binary_sizes_must_fit_the_shape() -> None:
    spec = {
        "name": "x",
        "datatype": "FP32",
        "shape": [2],
        "parameters": {"binary_data_size": 4},
    }
    head = orjson.dumps({"inputs": [spec]})
    with pytest.raises(InvalidArgumentError, match="holds 4 bytes"):
        decode_request(head + b"\0" * 4, len(head))


def test_outputs_are_binary_as_the_request_says_unless_the_output_says_otherwise() -> None:
    document = {
        "parameters": {"binary_data_output": True, "priority": "3"},
        "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
    }
    request = decode_request(orjson.dumps(document))
    assert [output.binary for output in request.outputs] == [True, False]
    assert (request.binary, request.priority) == (True, 3)


def test_bytes_that_are_no_text_cannot_be_json() -> None:
    answer = Answer("m", "1", "", [Tensor("y", "BYTES", np.array([b"\xff"], object))])
    with pytest.raises(InvalidArgumentError, match="'binary_data'"):
        encode_answer(answer, [False])


def test_bf16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, np.inf, np.nan, -0.0], np.float32)
    rounded = to_float32(from_float32(values))
    np.testing.assert_array_equal(rounded, np.array([1, 1, 1.015625, np.inf, np.nan, -0.0]))


def test_datatypes_of_arrays() -> None:
    assert datatype_of(np.dtype(">f4")) == "FP32"
    assert datatype_of(np.dtype("S4")) == "BYTES"
    with pytest.raises(InvalidArgumentError, match="complex128 cannot be sent"):
        datatype_of(np.dtype(complex))


def test_an_answer_may_leave_its_version_and_id_open() -> None:
    answer = decode_answer(b'{"model_name": "m", "model_version": null, "id": null, "outputs": []}')
    assert answer == Answer("m", "", "", [])


def test_each_answer_has_the_id_of_its_own_request() -> None:
    outputs = [Tensor("y", "FP32", np.ones((1, 2), np.float32))]
    for request_id in ("a", "", 'b"', "c" * 1000):
        for binary in (True, False):
            sent = encode_answer(Answer("m", "1", request_id, outputs), [binary])
            assert decode_answer(*sent).request_id == request_id
