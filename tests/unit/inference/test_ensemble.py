"""How models are linked, and what passes between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton_ai.errors import InvalidArgumentError
from lepton_worker.inference.ensemble import Ensemble, link
from lepton_worker.inference.signature import Signature, TensorSpec


def spec(name: str, shape: tuple[int, ...] = (-1, 4), datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def signature(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
    return Signature(tuple(inputs), tuple(outputs), 8)


class Adder:
    size_bytes = 10
    uniform = True

    def __init__(self, taken: str, given: str) -> None:
        self.signature = signature([spec(taken)], [spec(given)])
        self.seen: list[NDArray[Any]] = []
        self.given: list[NDArray[Any]] = []

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        self.seen = list(arrays)
        self.given = [arrays[0] + 1]
        return self.given


def test_tensors_pass_by_reference() -> None:
    models = [Adder("a", "b"), Adder("x", "y"), Adder("y", "z")]
    ensemble = Ensemble(models, [{}, {}, {}])
    (answer,) = ensemble.run([np.zeros((1, 4))])
    assert answer.tolist() == [[3.0] * 4]
    assert models[1].seen[0] is models[0].given[0]
    assert [tensor.name for tensor in ensemble.signature.inputs] == ["a"]
    assert [tensor.name for tensor in ensemble.signature.outputs] == ["z"]
    assert ensemble.size_bytes == 30
    assert ensemble.uniform
    models[1].uniform = False
    assert not ensemble.uniform


def test_inputs_that_no_model_gives_are_the_wholes() -> None:
    first = signature([spec("image")], [spec("features"), spec("size", (-1, 2))])
    second = signature([spec("features"), spec("threshold", (-1, 1))], [spec("boxes")])
    plan = link([first, second], [{}, {}])
    assert [tensor.name for tensor in plan.signature.inputs] == ["image", "threshold"]
    assert plan.feeds == [["image"], ["features", "threshold"]]


def test_renamings_choose_among_all_that_came_before() -> None:
    first = signature([spec("image")], [spec("a"), spec("b")])
    second = signature([spec("x")], [spec("c")])
    third = signature([spec("x"), spec("y")], [spec("d")])
    plan = link([first, second, third], [{}, {"x": "b"}, {"x": "a", "y": "c"}])
    assert plan.feeds == [["image"], ["b"], ["a", "c"]]


@pytest.mark.parametrize(
    ("second", "renames", "words"),
    [
        ([spec("y", (-1, 5))], {}, r"takes 'y' as FP32 \[-1, 5\]: 'y' is FP32 \[-1, 4\]"),
        ([spec("y", datatype="INT64")], {}, "takes 'y' as INT64"),
        ([spec("y", (-1,))], {}, r"takes 'y' as FP32 \[-1\]"),
        ([spec("y")], {"z": "y"}, "model 2 of the ensemble has no input 'z': it has y"),
        ([spec("y")], {"y": "x"}, "gives 'x': they give y"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    second: list[TensorSpec], renames: dict[str, str], words: str
) -> None:
    first = signature([spec("x")], [spec("y")])
    with pytest.raises(InvalidArgumentError, match=words):
        link([first, signature(second, [spec("z")])], [{}, renames])


def test_one_model_without_batching_is_enough_for_all() -> None:
    first = signature([spec("x")], [spec("y")])
    second = Signature((spec("y"),), (spec("z"),), 0)
    assert link([first, second], [{}, {}]).signature.max_batch_size == 0
