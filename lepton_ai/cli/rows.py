"""What `lepton predict` asks with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lepton_ai.errors import InvalidArgumentError, NotFoundError

__all__ = ["read_rows"]


def read_rows(path: Path, row_shape: Callable[[], tuple[int, ...]]) -> Any:
    """The rows in a file, or on standard input for ``-``.

    Args:
        path: A JSON array, or what `lepton_ai.datasets.files.rows_from` reads.
        row_shape: Asks the model what a row of it looks like.

    Raises:
        NotFoundError: There is no such file.
        DataError: The file cannot be read.
        InvalidArgumentError: The JSON is none.
    """
    if str(path) == "-":
        return _parsed("standard input", sys.stdin.read())
    if path.suffix == ".json":
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}")
        return _parsed(str(path), path.read_text())

    from lepton_ai.datasets.files import rows_from

    return rows_from(path, row_shape())


def _parsed(source: str, text: str) -> Any:
    import numpy as np

    try:
        return np.asarray(json.loads(text))
    except ValueError as error:
        raise InvalidArgumentError(f"{source} holds no rows: {error}") from None
