"""Models on disk: one safetensors file, whose header holds the model's config as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_ai.errors import DataCorruptError, NotFoundError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ModelFile", "from_bytes", "read_model", "to_bytes", "write_model"]

_HEADER = "lepton"


@dataclass(frozen=True)
class ModelFile:
    """What one file holds.

    Attributes:
        header: The model's config under ``"model"``, its history under ``"history"`` and, in a
            checkpoint, where the run stood under ``"run"``.
        tensors: Weights by name and, in a checkpoint, optimizer state.
    """

    header: dict[str, Any]
    tensors: Mapping[str, Tensor]


def to_bytes(file: ModelFile) -> bytes:
    """The bytes of a model file."""
    from safetensors.torch import save

    return save(
        {name: tensor.contiguous().cpu() for name, tensor in file.tensors.items()},
        {_HEADER: json.dumps(file.header)},
    )


def from_bytes(content: bytes) -> ModelFile:
    """The model file that `to_bytes` wrote.

    Raises:
        DataCorruptError: The bytes are not a model file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"][_HEADER]
        return ModelFile(json.loads(header), load(content))
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise DataCorruptError("this is not a model that Lepton saved") from None


def write_model(path: str | Path, file: ModelFile) -> None:
    """Write a model file; a reader sees the old file or the new one, never half of either."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(to_bytes(file))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def read_model(path: str | Path) -> ModelFile:
    """Read a model file.

    Raises:
        NotFoundError: There is no such file.
        DataCorruptError: It is not a model file.
    """
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError(f"there is no model file {path}") from None
    return from_bytes(content)
