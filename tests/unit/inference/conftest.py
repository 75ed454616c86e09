"""Small ONNX models, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from onnx import TensorProto, helper

ModelMaker = Callable[..., bytes]


def make_model(
    elem_type: int = TensorProto.FLOAT,
    shape: Sequence[str | int] = ("batch", 2),
    *,
    op: str = "Identity",
    out_shape: Sequence[str | int | None] | None = None,
) -> bytes:
    """A model of one node from `x` to `y`."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", elem_type, list(shape))],
        [helper.make_tensor_value_info("y", elem_type, list(out_shape or shape))],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


@pytest.fixture
def model_maker() -> ModelMaker:
    """`make_model`, which importlib mode lets tests have only as a fixture."""
    return make_model
