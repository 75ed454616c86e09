"""Smaller, faster variants of an ONNX model, kept only if their answers stay the same."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from lepton_ai.errors import InvalidArgumentError

__all__ = ["MIN_AGREEMENT", "Variant", "agreement", "make_variant"]

Array = NDArray[Any]

MIN_AGREEMENT = 0.99
"""Least share of a sample on which a variant has to agree with the original."""


class Variant(NamedTuple):
    """A variant that may be served in place of its original.

    Attributes:
        kind: ``"int8"`` or ``"fp16"``.
        content: The ONNX file.
        agreement: The share of the sample on which it agrees with the original, from 0 to 1.
    """

    kind: str
    content: bytes
    agreement: float


def make_variant(content: bytes, kind: str, sample: Array) -> Variant:
    """A variant of a model that agrees with it on a sample.

    ``int8`` has the weights of dense layers in 8 bits and quantises what they take while they
    compute; ``fp16`` computes in half precision and takes and gives what the original does.

    Args:
        content: The ONNX file of a model with one input.
        kind: ``"int8"`` or ``"fp16"``.
        sample: Rows as the model takes them, a hundred or more, like those it will be asked for.

    Raises:
        InvalidArgumentError: There is no such kind, or the variant does not agree.
    """
    if kind not in _MAKERS:
        raise InvalidArgumentError(
            f"variant {kind!r} does not exist", hint=f"there are {', '.join(_MAKERS)}"
        )
    if not len(sample):
        raise InvalidArgumentError("the sample for variants is empty", hint="give some rows")
    made = _MAKERS[kind](onnx.load_from_string(content))
    share = agreement(_answers(content, sample), _answers(made, sample))
    if share < MIN_AGREEMENT:
        raise InvalidArgumentError(
            f"variant {kind!r} agrees with the original on {share:.1%} of the sample",
            hint=f"{MIN_AGREEMENT:.0%} are needed; publish without it",
        )
    return Variant(kind, made, share)


def agreement(expected: Array, found: Array) -> float:
    """The share of rows on which two models say the same.

    Of several numbers in a row the largest is what a model says, so accuracy cannot differ by more
    than the share of rows on which they disagree. A single number is the same within a hundredth of
    how widely they spread.
    """
    rows = len(expected)
    expected, found = expected.reshape(rows, -1), found.reshape(rows, -1)
    if expected.shape[1] > 1:
        return float((expected.argmax(axis=1) == found.argmax(axis=1)).mean())
    spread = max(float(expected.std()), 1e-6)
    return float((np.abs(expected - found) <= 0.01 * spread).mean())


def _answers(content: bytes, sample: Array) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    if taken.type == "tensor(float)":
        sample = sample.astype(np.float32)
    return np.asarray(session.run(None, {taken.name: sample})[0], np.float64)


def _int8(model: onnx.ModelProto) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # It recommends steps that exported models have had.
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_dynamic(
                model,
                path,
                # What is quantised while it computes is slower than the original elsewhere.
                op_types_to_quantize=["MatMul", "Gemm"],
                weight_type=QuantType.QInt8,
            )
            return path.read_bytes()
    finally:
        logger.setLevel(level)


def _fp16(model: onnx.ModelProto) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True).SerializeToString()


_MAKERS: dict[str, Callable[[onnx.ModelProto], bytes]] = {"int8": _int8, "fp16": _fp16}
