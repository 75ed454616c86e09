"""Whether a request fits a model."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.oip import Tensor
from lepton_worker.inference.signature import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec("image", "FP32", (-1, 2)), TensorSpec("mask", "INT64", (-1,))),
    outputs=(TensorSpec("logits", "FP32", (-1, 10)), TensorSpec("label", "INT64", (-1,))),
    max_batch_size=4,
)


def image(*shape: int, name: str = "image", dtype: str = "FP32") -> Tensor:
    return Tensor(name, dtype, np.zeros(shape, np.float32))


def mask(rows: int) -> Tensor:
    return Tensor("mask", "INT64", np.zeros(rows, np.int64))


def test_inputs_are_put_into_the_models_order() -> None:
    arrays = SIGNATURE.arrange([mask(3), image(3, 2)])
    assert [array.shape for array in arrays] == [(3, 2), (3,)]
    assert SIGNATURE.rows(arrays) == 3


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([image(1, 2)], "input 'mask' is missing: this model needs image, mask"),
        ([image(1, 2), mask(1), image(1, 2, name="x")], "input 'x' does not exist"),
        ([image(1, 2, name="imgae"), mask(1)], "did you mean 'image'?"),
        ([image(1, 2), image(1, 2), mask(1)], "an input comes twice"),
        ([image(1, 2, dtype="FP64"), mask(1)], "has datatype FP64: this model takes FP32"),
        ([image(1, 3), mask(1)], "shape [1, 3]: this model takes [-1, 2]"),
        ([image(2), mask(1)], "shape [2]: this model takes [-1, 2]"),
        ([image(0, 2), mask(0)], "is empty"),
        ([image(2, 2), mask(3)], "the inputs have [2, 3] rows"),
        ([image(5, 2), mask(5)], "5 rows: this model takes 1 to 4"),
    ],
)
def test_what_does_not_fit_is_named(tensors: list[Tensor], words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        SIGNATURE.arrange(tensors)
    assert words in str(caught.value)


def test_outputs_are_selected_in_the_order_asked_for() -> None:
    assert list(SIGNATURE.select([])) == [0, 1]
    assert SIGNATURE.select(["label", "logits"]) == [1, 0]
    with pytest.raises(InvalidArgumentError, match="did you mean 'label'"):
        SIGNATURE.select(["lable"])


def test_a_bare_tensor_takes_its_rows_from_its_bytes() -> None:
    one = Signature(SIGNATURE.inputs[:1], SIGNATURE.outputs, 4)
    assert one.raw_tensor(b"\0" * 24).array.shape == (3, 2)
    with pytest.raises(InvalidArgumentError, match="holds 25 bytes"):
        one.raw_tensor(b"\0" * 25)
    with pytest.raises(InvalidArgumentError, match="has 2"):
        SIGNATURE.raw_tensor(b"")


@pytest.mark.parametrize(
    ("spec", "max_batch_size", "uniform"),
    [
        (TensorSpec("x", "FP32", (-1, 3)), 4, True),
        (TensorSpec("x", "FP32", (2, 3)), 0, True),
        (TensorSpec("x", "FP32", (-1, 3)), 0, False),
        (TensorSpec("x", "FP32", (-1, -1)), 4, False),
        (TensorSpec("x", "BYTES", (-1, 1)), 4, False),
    ],
)
def test_rows_are_uniform_where_nothing_but_their_number_is_free(
    spec: TensorSpec, max_batch_size: int, uniform: bool
) -> None:
    assert Signature((spec,), (), max_batch_size).is_uniform is uniform
