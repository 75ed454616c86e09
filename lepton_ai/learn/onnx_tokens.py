"""A tokenizer as ONNX nodes, put in front of a model that takes tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from lepton_ai.preprocessing.steps import UNKNOWN_WORDS, Tokenizer

__all__ = ["prepend_tokenizer"]

_NOT_KNOWN = -1


def prepend_tokenizer(model: onnx.ModelProto, tokenizer: Tokenizer) -> onnx.ModelProto:
    """`model` with texts of shape ``(batch,)`` as its input in place of tokens.

    The nodes give exactly what `Tokenizer.transform` does.
    """
    model = compose.add_prefix(model, "model_", rename_inputs=True, rename_outputs=False)
    front = helper.make_model(
        _graph(tokenizer),
        opset_imports=[*model.opset_import, helper.make_opsetid("ai.onnx.ml", 4)],
        ir_version=model.ir_version,
    )
    return compose.merge_models(front, model, io_map=[("tokens", "model_input")])


def _graph(tokenizer: Tokenizer) -> onnx.GraphProto:
    steps = tokenizer.steps
    constants = {
        "steps": np.array([steps]),
        "width": np.array(steps),
        "zero": np.array([0]),
        "one": np.array([1]),
        "columns": np.arange(steps)[np.newaxis],
        "no_numbers": np.zeros((1, steps), np.int64),
        **{f"class_{number}": np.array(number) for number in range(1, len(UNKNOWN_WORDS) + 1)},
    }
    return helper.make_graph(
        [*_number_words(tokenizer), *_place_words()],
        "tokenizer",
        [helper.make_tensor_value_info("input", TensorProto.STRING, ["batch"])],
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", steps])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def _number_words(tokenizer: Tokenizer) -> Iterator[onnx.NodeProto]:
    """From ``input`` to ``numbers`` of ``(batch, most words in a text)`` and each text's length."""
    # The "C" locale, which every machine has, changes the case of A to Z alone.
    yield helper.make_node(
        "StringNormalizer", ["input"], ["small"], case_change_action="LOWER", locale="C"
    )
    yield helper.make_node("StringSplit", ["small"], ["words", "lengths"])
    unknown = f"class_{len(UNKNOWN_WORDS)}"
    for number in range(len(UNKNOWN_WORDS) - 1, 0, -1):
        pattern = f"(?s){UNKNOWN_WORDS[number - 1]}"
        yield helper.make_node("RegexFullMatch", ["words"], [f"like_{number}"], pattern=pattern)
        names = [f"like_{number}", f"class_{number}", unknown]
        unknown = f"unknown_{number}"
        yield helper.make_node("Where", names, [unknown])
    numbers = tokenizer.numbers
    yield helper.make_node(
        "LabelEncoder",
        ["words"],
        ["known"],
        domain="ai.onnx.ml",
        keys_strings=["", *numbers],
        values_int64s=[0, *numbers.values()],
        default_int64=_NOT_KNOWN,
    )
    yield helper.make_node("Less", ["known", "zero"], ["is_unknown"])
    yield helper.make_node("Where", ["is_unknown", unknown, "known"], ["numbers"])


def _place_words() -> Iterator[onnx.NodeProto]:
    """From ``numbers`` to ``tokens``: each row exactly `steps` long, with its padding first."""
    yield helper.make_node("Shape", ["input"], ["batch"])
    yield helper.make_node("Concat", ["batch", "one"], ["tall"], axis=0)
    yield helper.make_node("Tile", ["no_numbers", "tall"], ["padding"])
    yield helper.make_node("Concat", ["numbers", "padding"], ["long"], axis=1)
    yield helper.make_node("Slice", ["long", "zero", "steps", "one"], ["rows"])
    # Padding is last here; each row is turned by its own length.
    yield helper.make_node("Min", ["lengths", "width"], ["kept"])
    yield helper.make_node("Unsqueeze", ["kept", "one"], ["shift"])
    yield helper.make_node("Add", ["columns", "shift"], ["shifted"])
    yield helper.make_node("Mod", ["shifted", "width"], ["places"])
    yield helper.make_node("GatherElements", ["rows", "places"], ["tokens"], axis=1)
