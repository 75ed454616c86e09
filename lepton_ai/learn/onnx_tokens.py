"""A tokenizer as ONNX nodes, put in front of a model that takes tokens."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from lepton_ai.preprocessing.steps import Tokenizer

__all__ = ["prepend_tokenizer"]


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
        "steps_scalar": np.array(steps),
        "zero": np.array([0]),
        "one": np.array([1]),
        "columns": np.arange(steps)[np.newaxis],
        "no_numbers": np.zeros((1, steps), np.int64),
    }
    nodes = [
        # The "C" locale, which every machine has, changes the case of A to Z alone.
        helper.make_node(
            "StringNormalizer", ["input"], ["small"], case_change_action="LOWER", locale="C"
        ),
        helper.make_node("StringSplit", ["small"], ["words", "lengths"]),
        helper.make_node(
            "LabelEncoder",
            ["words"],
            ["numbers"],
            domain="ai.onnx.ml",
            keys_strings=["", *(tokenizer.vocabulary or ())],
            values_int64s=[0, *range(2, 2 + len(tokenizer.vocabulary or ()))],
            default_int64=1,
        ),
        # Make every row exactly `steps` long, padding last.
        helper.make_node("Shape", ["input"], ["batch"]),
        helper.make_node("Concat", ["batch", "one"], ["tall"], axis=0),
        helper.make_node("Tile", ["no_numbers", "tall"], ["padding"]),
        helper.make_node("Concat", ["numbers", "padding"], ["long"], axis=1),
        helper.make_node("Slice", ["long", "zero", "steps", "one"], ["rows"]),
        # Turn each row so that the padding comes first.
        helper.make_node("Min", ["lengths", "steps_scalar"], ["kept"]),
        helper.make_node("Unsqueeze", ["kept", "one"], ["shift"]),
        helper.make_node("Add", ["columns", "shift"], ["shifted"]),
        helper.make_node("Mod", ["shifted", "steps_scalar"], ["places"]),
        helper.make_node("GatherElements", ["rows", "places"], ["tokens"], axis=1),
    ]
    return helper.make_graph(
        nodes,
        "tokenizer",
        [helper.make_tensor_value_info("input", TensorProto.STRING, ["batch"])],
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", steps])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
