"""Variants of a model: what they take and give, and when they are refused."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.learn.onnx_variants import agreement, make_variant

RANDOM = np.random.default_rng(3)
SAMPLE = RANDOM.random((400, 64), np.float32)


def two_layers(scale: float = 1.0) -> bytes:
    """A classifier of ten classes; with a great scale, one beyond half precision."""
    weights = {
        "w1": RANDOM.standard_normal((64, 256)).astype(np.float32) * scale,
        "w2": RANDOM.standard_normal((256, 10)).astype(np.float32) / scale,
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.35), ("fp16", 0.6)])
def test_variants_are_smaller_and_take_and_give_what_the_model_does(
    kind: str, share: float
) -> None:
    content = two_layers()
    variant = make_variant(content, kind, SAMPLE)
    assert len(variant.content) < share * len(content)
    assert variant.agreement >= 0.99
    session = onnxruntime.InferenceSession(variant.content)
    (answer,) = session.run(["y"], {"x": SAMPLE[:3]})
    assert answer.dtype == np.float32
    expected = onnxruntime.InferenceSession(content).run(["y"], {"x": SAMPLE[:3]})[0]
    assert (answer.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_a_variant_that_answers_otherwise_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="99% are needed"):
        make_variant(two_layers(scale=1e6), "fp16", SAMPLE)


def test_an_unknown_kind_and_an_empty_sample_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="there are int8, fp16"):
        make_variant(b"", "int4", SAMPLE)
    with pytest.raises(InvalidArgumentError, match="is empty"):
        make_variant(b"", "int8", SAMPLE[:0])


def test_agreement_is_of_the_largest_or_within_a_hundredth_of_the_spread() -> None:
    expected = np.array([[0.1, 0.9], [0.8, 0.2]])
    assert agreement(expected, np.array([[0.4, 0.6], [0.3, 0.7]])) == 0.5
    values = np.array([[0.0], [100.0]])
    assert agreement(values, np.array([[0.4], [101.0]])) == 0.5
