"""One's own data from files: CSV, Parquet, NumPy and folders of images."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import DataError, NotFoundError
from lepton_ai.learn.declaration import nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "IMAGE_SUFFIXES",
    "arrays_of",
    "class_names",
    "csv_table",
    "existing",
    "image_pixels",
    "images_below",
    "parquet_table",
    "read_csv",
    "read_images",
    "read_numpy",
    "read_parquet",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})


def read_csv(path: str | Path, *, label: str) -> tuple[pd.DataFrame, pd.Series]:
    """Read a table from a CSV file with a header line.

    Args:
        path: The file.
        label: The column to predict.

    Returns:
        The other columns, and the label's column; rows are samples.

    Raises:
        NotFoundError: There is no such file or column; names the nearest.
        DataError: The file is not a table.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/houses.csv").write_text("area,price\\n50,150\\n60,190\\n")
        ...     x, y = read_csv(f"{folder}/houses.csv", label="price")
        >>> list(x), y.tolist()
        (['area'], [150, 190])
    """
    return _labelled(csv_table(path), path, label)


def read_parquet(path: str | Path, *, label: str) -> tuple[pd.DataFrame, pd.Series]:
    """Read a table from a Parquet file.

    Args:
        path: The file.
        label: The column to predict.

    Returns:
        The other columns, and the label's column; rows are samples.

    Raises:
        NotFoundError: There is no such file or column; names the nearest.
        DataError: The file is not a table.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pd.DataFrame({"area": [50], "price": [150]}).to_parquet(f"{folder}/houses.parquet")
        ...     x, y = read_parquet(f"{folder}/houses.parquet", label="price")
        >>> list(x), y.tolist()
        (['area'], [150])
    """
    return _labelled(parquet_table(path), path, label)


def read_numpy(path: str | Path, *, x: str = "x", y: str = "y") -> tuple[Any, Any]:
    """Read data and labels from a NumPy ``.npz`` file. Pickled objects are refused.

    Args:
        path: The file.
        x: Name of the data in it.
        y: Name of the labels in it.

    Returns:
        The two arrays.

    Raises:
        NotFoundError: There is no such file or array; names the nearest.
        DataError: The file is not ``.npz``, or holds pickled objects.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/houses.npz", x=np.array([[50.0]]), y=np.array([150.0]))
        ...     x, y = read_numpy(f"{folder}/houses.npz")
        >>> x.tolist(), y.tolist()
        ([[50.0]], [150.0])
    """
    arrays = arrays_of(path)
    for name in (x, y):
        if name not in arrays:
            raise NotFoundError(f"{path} has no {name!r}", hint=nearest(name, arrays))
    return arrays[x], arrays[y]


def read_images(
    folder: str | Path, *, size: tuple[int, int], channels: int = 3
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Read images from a folder that has a folder for each class.

    Args:
        folder: The folder of folders.
        size: Height and width to scale every image to, in pixels.
        channels: 3 for colour or 1 for grey.

    Returns:
        Images ``(samples, height, width, channels)`` uint8, labels ``(samples,)`` int64, and the
        names of the classes: label 0 is the first.

    Raises:
        NotFoundError: There is no such folder.
        DataError: It has no images, or one cannot be read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(f"{folder}/cat").mkdir()
        ...     Image.new("RGB", (64, 48)).save(f"{folder}/cat/1.png")
        ...     images, labels, classes = read_images(folder, size=(24, 32))
        >>> images.shape, labels.tolist(), classes
        ((1, 24, 32, 3), [0], ['cat'])
    """
    if channels not in (1, 3):
        raise DataError(f"channels is {channels}", hint="3 for colour or 1 for grey")
    classes = class_names(existing(folder))
    files = images_below(Path(folder), classes)
    pixels = np.stack([image_pixels(path, size, channels) for path, _ in files])
    return pixels, np.array([label for _, label in files], np.int64), classes


def existing(path: str | Path) -> Path:
    """`path`, which must be there."""
    if not Path(path).exists():
        raise NotFoundError(f"there is no {path}")
    return Path(path)


def csv_table(path: str | Path) -> pd.DataFrame:
    """The table in a CSV file.

    Raises:
        DataError: There is none.
    """
    import pandas as pd

    return _table(pd.read_csv, path)


def parquet_table(path: str | Path) -> pd.DataFrame:
    """The table in a Parquet file.

    Raises:
        DataError: There is none.
    """
    import pandas as pd

    return _table(pd.read_parquet, path)


def arrays_of(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays in an ``.npz`` file, or ``x`` for that of an ``.npy`` file; no pickled objects.

    Raises:
        DataError: It is no such file.
    """
    try:
        # Opened here: of a damaged file NumPy would leave it open.
        with existing(path).open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"x": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, OSError, TypeError, EOFError, BadZipFile, zlib.error) as failure:
        raise DataError(f"{path} is not a file of plain arrays: {failure}") from None


def class_names(folder: Path) -> list[str]:
    """The folders in a folder of images, one for each class."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def images_below(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Each image with the number of its class.

    Raises:
        DataError: There are none.
    """
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not files:
        raise DataError(f"{folder} has no images", hint="give each class a folder of its own")
    return files


def image_pixels(path: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """An image scaled to ``(height, width, channels)``.

    Raises:
        DataError: It cannot be read.
    """
    from PIL import Image

    height, width = size
    try:
        with Image.open(path) as image:
            scaled = image.convert("RGB" if channels == 3 else "L").resize((width, height))
    except (OSError, Image.DecompressionBombError) as failure:
        raise DataError(f"{path} is not an image: {failure}") from None
    return np.asarray(scaled, np.uint8).reshape(height, width, channels)


def _table(read: Callable[..., Any], path: str | Path) -> pd.DataFrame:
    try:
        return read(existing(path))
    except (ValueError, OSError) as failure:
        raise DataError(f"{path} is not a table: {failure}") from None


def _labelled(table: pd.DataFrame, path: str | Path, label: str) -> tuple[pd.DataFrame, pd.Series]:
    if label not in table:
        raise NotFoundError(f"{path} has no column {label!r}", hint=nearest(label, table.columns))
    return table.drop(columns=label), cast("pd.Series", table[label])
