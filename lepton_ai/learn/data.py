"""What a caller's arrays, tables and texts become before they reach a model, checked once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import DataError, InvalidArgumentError
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.layers import BatchNorm, Embedding, Shape
from lepton_ai.learn.losses import Loss
from lepton_ai.preprocessing.steps import PreprocessingStep, Tokenizer

__all__ = [
    "as_inputs",
    "as_targets",
    "check_batch_norm",
    "check_lengths",
    "check_samples",
    "fit_preprocessing",
    "split_validation",
]

Array = NDArray[Any]


def as_inputs(config: ModelConfig, x: Any) -> Array:
    """`x` as ``(samples, *input_shape)``: uint8 stays, tokens are int64, all else float32.

    Args:
        config: The model; a tokenizer in its preprocessing must be fitted.
        x: An array, tensor or table of numbers, or texts for a model with a tokenizer.

    Raises:
        DataError: A wrong shape or type, NaN or infinity, or a token outside the vocabulary.
    """
    if len(x) == 0:
        raise DataError("there are no samples")
    tokenizer = _tokenizer(config)
    if tokenizer is not None:
        return tokenizer.transform(_texts(x))
    array = _shaped(_numeric(x), config.input_shape)
    first = config.layers[0]
    if isinstance(first, Embedding):
        return _tokens(array, first.vocabulary_size)
    return _owned(array, array.dtype) if array.dtype == np.uint8 else _finite(array, "data")


def as_targets(loss: Loss, y: Any, output_shape: Shape) -> Array:
    """`y` as `loss` takes it, first axis the samples.

    Raises:
        DataError: Labels out of range, of a wrong shape or type, or NaN.
    """
    array = _numeric(y)
    if array.dtype.kind == "f":
        array = _finite(array, "labels")
    targets = loss.check_targets(array, output_shape)
    return _owned(targets, targets.dtype)


def check_lengths(x: Any, y: Any) -> None:
    """Refuse data and labels that do not pair up.

    Raises:
        DataError: Labels are missing, or there are more or fewer of them than samples.
    """
    if y is None:
        raise DataError("labels are missing", hint="a stored dataset's name needs cluster=...")
    if len(x) != len(y):
        raise DataError(
            f"{len(x)} samples came with {len(y)} labels", hint="give one label a sample"
        )


def check_samples(config: ModelConfig, loss: Loss, x: Any, y: Any) -> None:
    """Refuse what could not be trained on; a tokenizer need not be fitted.

    Raises:
        DataError: As for `as_inputs`, `as_targets` and `check_lengths`.
    """
    check_lengths(x, y)
    if _tokenizer(config) is None:
        as_inputs(config, x)
    else:
        _texts(x)
    as_targets(loss, y, config.output_shape)


def check_batch_norm(config: ModelConfig, smallest_batch: int) -> None:
    """Refuse batches too small for a mean and variance over them.

    Raises:
        InvalidArgumentError: A batch would give batch normalisation one value a channel.
    """
    for layer, shape in zip(config.layers, config.shapes, strict=False):
        if isinstance(layer, BatchNorm) and smallest_batch * math.prod(shape[:-1]) < 2:
            raise InvalidArgumentError(
                "batch normalisation got one value a channel",
                hint="it needs batches of at least two samples",
            )


def fit_preprocessing(config: ModelConfig, x: Any) -> ModelConfig:
    """`config` with every preprocessing step fitted on `x`; steps already fitted stay as they are.

    Args:
        config: The model.
        x: Training data only: what is learnt here must not come from held-out samples.
    """
    if all(step.fitted for step in config.preprocessing):
        return config
    raw = _texts(x) if _tokenizer(config) is not None else _shaped(_numeric(x), config.input_shape)
    steps: list[PreprocessingStep] = []
    for step in config.preprocessing:
        steps.append(step if step.fitted else step.fit(raw))
    return replace(config, preprocessing=tuple(steps))


def split_validation(x: Any, y: Any, share: float) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The first part for training and the last `share` for validation, as they lie.

    Raises:
        DataError: One of the two would be empty.
    """
    held_out = round(len(x) * share)
    if not 0 < held_out < len(x):
        raise DataError(
            f"validation_split={share:g} of {len(x)} samples leaves a part empty",
            hint="choose a share between 0 and 1 that leaves samples on both sides",
        )
    kept = len(x) - held_out
    return (x[:kept], y[:kept]), (x[kept:], y[kept:])


def _tokenizer(config: ModelConfig) -> Tokenizer | None:
    return next((step for step in config.preprocessing if isinstance(step, Tokenizer)), None)


def _texts(x: Any) -> Sequence[str]:
    texts: list[Any] = [x] if isinstance(x, str) else list(x)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"sample {row} is of type {type(text).__name__}", hint="this model takes texts"
            )
    return texts


def _numeric(x: Any) -> Array:
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    try:
        array = np.asarray(x)
    except ValueError as ragged:
        raise DataError(f"data is not one array: {ragged}") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"data has dtype {array.dtype}", hint="it must be numbers")
    return array


def _shaped(array: Array, input_shape: Shape) -> Array:
    """`array` with a sample axis before `input_shape`; a channel axis of one may be left out."""
    if array.shape[1:] == input_shape:
        return array
    if array.ndim > 1 and (*array.shape[1:], 1) == input_shape:
        return array[..., np.newaxis]
    if array.ndim == 1 and input_shape == (1,):
        return array[:, np.newaxis]
    raise DataError(
        f"data has shape {array.shape}",
        hint=f"this model takes (samples, {', '.join(map(str, input_shape))})",
    )


def _tokens(array: Array, vocabulary_size: int) -> Array:
    if array.dtype.kind not in "iu":
        raise DataError(f"tokens have dtype {array.dtype}", hint="they must be whole numbers")
    if array.size and (array.min() < 0 or array.max() >= vocabulary_size):
        raise DataError(
            f"tokens must lie in [0, {vocabulary_size})",
            hint=f"found values from {array.min()} to {array.max()}",
        )
    return _owned(array, np.dtype(np.int64))


def _owned(array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` as torch takes it without a copy or a complaint: contiguous and writable."""
    return np.require(array, dtype, ("C_CONTIGUOUS", "WRITEABLE"))


def _finite(array: Array, what: str) -> Array:
    """`array` as contiguous float32 without NaN or infinity."""
    values = _owned(array, np.dtype(np.float32))
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if bad.size:
        raise DataError(
            f"{what} holds NaN or infinity in {bad.size} of {len(values)} samples, "
            f"first in sample {bad[0]}",
            hint="lepton_ai.preprocessing.fill_missing replaces missing values",
        )
    return values
