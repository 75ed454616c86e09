"""From a fitted network to one ONNX file that takes raw input, proved equal before it appears."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from lepton_ai.errors import InternalError
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.layers import Embedding
from lepton_ai.learn.network import Network
from lepton_ai.learn.onnx_tokens import prepend_tokenizer
from lepton_ai.preprocessing.steps import Scaler, Tokenizer

__all__ = ["export"]

Array = NDArray[Any]

_OPSET = 20
"""The first with StringSplit, which the tokenizer needs."""

_CHECKED_BATCHES = (1, 2, 64)
_TOLERANCE = 1e-4


def export(config: ModelConfig, network: Network, path: Path) -> None:
    """Write `network` with its preprocessing to `path`, after checking it against torch.

    Raises:
        InternalError: ONNX Runtime and torch do not agree on random input.
    """
    device = next(network.parameters()).device
    try:
        model = _translate(network.to("cpu").eval(), _example(config, 2))
        tokenizer = _tokenizer(config)
        if tokenizer is not None:
            model = prepend_tokenizer(model, tokenizer)
        content = model.SerializeToString()
        _check_parity(config, network, content)
    finally:
        network.to(device)
    _replace(path, content)


def _translate(network: Network, example: Array) -> onnx.ModelProto:
    # Traced with two samples: with one, the exporter would take the batch for a constant.
    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.from_numpy(example),),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without the exporter's notes, which hold source lines and paths of this machine."""
    model.graph.ClearField("metadata_props")
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.ClearField("metadata_props")
    return model


def _check_parity(config: ModelConfig, network: Network, content: bytes) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    tokenizer = _tokenizer(config)
    for batch in _CHECKED_BATCHES:
        example = _example(config, batch)
        raw = example if tokenizer is None else _texts(tokenizer, batch)
        tokens = example if tokenizer is None else tokenizer.transform(raw.tolist())
        found = np.asarray(session.run(["output"], {"input": raw})[0])
        with torch.inference_mode():
            expected = network(torch.from_numpy(tokens)).numpy()
        if found.shape != expected.shape or not np.allclose(
            found, expected, rtol=_TOLERANCE, atol=_TOLERANCE
        ):
            raise InternalError(
                f"the exported model differs from torch at {batch} samples",
                hint="the file was not written",
            )


def _example(config: ModelConfig, batch: int) -> Array:
    """Random input as the network takes it: tokens, raw uint8, or float32."""
    random = np.random.default_rng(batch)
    shape = (batch, *config.input_shape)
    first = config.layers[0]
    if isinstance(first, Embedding):
        return random.integers(0, first.vocabulary_size, shape)
    scaler = next((step for step in config.preprocessing if isinstance(step, Scaler)), None)
    if scaler is not None and scaler.dtype == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    values = random.standard_normal(shape, dtype=np.float32)
    return values if scaler is None else scaler.inverse(values)


def _texts(tokenizer: Tokenizer, batch: int) -> Array:
    """Random texts: capitals, unknown words, runs of spaces, too long ones and an empty one."""
    random = np.random.default_rng(batch)
    words = [*(tokenizer.vocabulary or ())[:50], "Zyzzyva", "£5", "07712345678", "really!", "?!"]
    texts = [
        "  ".join(random.choice(words, size=random.integers(0, 2 * tokenizer.steps)))
        for _ in range(batch)
    ]
    return np.array(["", *(text.upper() for text in texts[1:])], dtype=object)


def _tokenizer(config: ModelConfig) -> Tokenizer | None:
    return next((step for step in config.preprocessing if isinstance(step, Tokenizer)), None)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Hides what the exporter says of its own insides: its steps and deprecated calls."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
