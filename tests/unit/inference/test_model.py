"""ONNX models in ONNX Runtime: types, batching, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.oip import from_float32
from lepton_worker.inference import memory, providers
from lepton_worker.inference.model import Model, ModelLimits, warm_sizes
from lepton_worker.inference.options import ServingOptions

ModelMaker = Callable[..., bytes]
LIMITS = ModelLimits(threads=1, file_bytes=2_000_000)
OPTIONS = ServingOptions(max_batch_size=8)


@pytest.mark.parametrize(
    ("elem_type", "datatype", "values"),
    [
        (TensorProto.BOOL, "BOOL", np.array([[True, False]])),
        (TensorProto.UINT8, "UINT8", np.array([[1, 255]], np.uint8)),
        (TensorProto.INT64, "INT64", np.array([[-1, 2**62]], np.int64)),
        (TensorProto.FLOAT16, "FP16", np.array([[0.5, -2]], np.float16)),
        (TensorProto.BFLOAT16, "BF16", from_float32(np.array([[0.5, -2]], np.float32))),
        (TensorProto.DOUBLE, "FP64", np.array([[0.1, 1e300]])),
    ],
)
def test_every_type_goes_through(
    model_maker: ModelMaker, elem_type: int, datatype: str, values: NDArray[Any]
) -> None:
    model = Model(model_maker(elem_type), OPTIONS, LIMITS)
    assert model.signature.inputs[0].datatype == datatype
    (output,) = model.run([values])
    assert output.dtype == values.dtype
    np.testing.assert_array_equal(output, values)


def test_texts_go_through_and_have_to_be_utf8(model_maker: ModelMaker) -> None:
    model = Model(model_maker(TensorProto.STRING), OPTIONS, LIMITS)
    (output,) = model.run([np.array([[b"a", "é".encode()]], object)])
    assert output.tolist() == [["a", "é"]]
    with pytest.raises(InvalidArgumentError, match="not UTF-8"):
        model.run([np.array([[b"a", b"\xff"]], object)])


@pytest.mark.parametrize(
    ("shape", "batch_limit"),
    [(("batch", 2), 8), ((None, 2), 8), ((1, 2), 0), ((), 0)],
)
def test_only_a_free_first_dimension_makes_batches(
    model_maker: ModelMaker, shape: tuple[Any, ...], batch_limit: int
) -> None:
    assert Model(model_maker(shape=shape), OPTIONS, LIMITS).signature.max_batch_size == batch_limit


def test_a_model_that_mixes_rows_is_not_batched() -> None:
    """NonZero's answer has a first dimension of its own, although both are free."""
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [None, None])],
    )
    opset = [helper.make_opsetid("", 17)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    assert Model(data, OPTIONS, LIMITS).signature.max_batch_size == 0


@pytest.mark.parametrize("location", ["w.bin", "/etc/passwd", "../w.bin"])
def test_weights_outside_of_the_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(4, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    weights = onnx.TensorProto(
        name="w",
        data_type=TensorProto.FLOAT,
        dims=[4],
        data_location=onnx.TensorProto.EXTERNAL,
    )
    weights.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    with pytest.raises(InvalidArgumentError, match="external data is refused"):
        Model(data, OPTIONS, LIMITS)


def test_what_is_no_model_is_refused_without_a_path() -> None:
    with pytest.raises(InvalidArgumentError, match="not a model") as caught:
        Model(b"nothing", OPTIONS, LIMITS)
    assert "/" not in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "preferred", "sizes"),
    [(0, (), [1]), (1, (), [1]), (8, (), [1, 2, 8]), (500, (16, 999), [1, 2, 16, 64])],
)
def test_models_are_warmed_up_with_the_batches_they_will_see(
    limit: int, preferred: tuple[int, ...], sizes: list[int]
) -> None:
    assert warm_sizes(limit, preferred) == sizes


def test_on_a_processor_rows_are_alike(
    model_maker: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(model_maker(), OPTIONS, LIMITS)
    assert model.uniform
    monkeypatch.setattr(providers, "on_gpu", lambda session: True)
    assert not model.uniform


def test_a_models_size_is_what_the_heap_grew_by(model_maker: ModelMaker) -> None:
    small = Model(model_maker(), OPTIONS, LIMITS)
    weights = numpy_helper.from_array(np.ones((512, 512), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 512])],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    large = Model(data, OPTIONS, LIMITS)
    assert len(data) <= large.size_bytes < 4 * len(data)
    assert small.size_bytes < len(data)


def test_batches_of_any_size_leave_nothing_behind() -> None:
    """ONNX Runtime's arena would grow with every size that it has not seen."""
    weights = numpy_helper.from_array(np.ones((256, 1024), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1024])],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    model = Model(data, ServingOptions(max_batch_size=256), LIMITS)
    before_bytes = memory.allocated_bytes()
    for rows in range(1, 257):  # Over a hundred megabytes of results together.
        model.run([np.ones((rows, 256), np.float32)])
    assert memory.allocated_bytes() - before_bytes < 1_000_000
