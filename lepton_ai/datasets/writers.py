"""Data as files that readers take."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["write_npz"]


def write_npz(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns as a NumPy ``.npz`` file, whatever their names.

    `numpy.savez` takes names as keyword arguments, of which some have a meaning of their own.

    Args:
        path: Written anew.
        columns: Of any shapes and dtypes but objects.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_npz(Path(folder) / "x.npz", {"file": np.arange(3)})
        ...     print(np.load(Path(folder) / "x.npz")["file"])
        [0 1 2]
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, column, allow_pickle=False)
