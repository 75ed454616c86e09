"""Datasets from files: tables, arrays, folders of images, and archives of these."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton_ai.datasets.archives import is_archive, unpack
from lepton_ai.errors import DataError, NotFoundError
from lepton_ai.learn.declaration import nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["rows_from", "splits_from"]

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_TABLES = (".csv", ".parquet")
_ARRAYS = (".npy", ".npz")
_SPLITS = ("train", "validation", "test")
_WHOLE = "train"
_SUPPORTED = "a .csv, .parquet, .npy or .npz file, a folder of images, or an archive of these"

Columns = dict[str, NDArray[Any]]


def splits_from(
    path: str | Path, *, label: str = "", image_size: tuple[int, int] | None = None
) -> dict[str, Columns]:
    """The splits of a dataset, by name, each a mapping of columns.

    A folder with ``train`` and, as may be, ``validation`` and ``test`` (folders, or files of any
    kind below) has these splits; everything else is the split ``train``.

    Args:
        path: A table (``.csv`` with a header line, ``.parquet``), arrays (``.npy``, the column
            ``x``; ``.npz``, a column each), a folder of images with a folder for each class (``x``
            uint8 ``(rows, height, width, channels)``, ``y`` int64, ``label`` the class's name),
            or an archive (``.zip``, ``.tar…``) of any of these.
        label: The column of a table to predict. It becomes ``y``; the others ``x``, a float32
            matrix. Texts become numbers in their order, and stay beside them as ``label``.
            Without it columns keep their names.
        image_size: Height and width to scale images to, in pixels; None where all are alike.

    Raises:
        NotFoundError: There is no such file or column; names the nearest.
        DataError: It cannot be read, or cannot be a dataset; says which file and why.
        ResourceExhaustedError: An archive becomes too large.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/houses.csv").write_text("area,price\\n50,150\\n60,190\\n")
        ...     splits = splits_from(f"{folder}/houses.csv", label="price")
        >>> splits["train"]["x"].tolist(), splits["train"]["y"].tolist()
        ([[50.0], [60.0]], [150, 190])
    """
    source = Path(path)
    if not source.exists():
        raise NotFoundError(f"there is no {path}")
    if source.is_file() and is_archive(source):
        with tempfile.TemporaryDirectory(prefix="lepton-") as folder:
            unpack(source, Path(folder))
            return splits_from(_content(Path(folder)), label=label, image_size=image_size)
    parts = _parts(source) or {_WHOLE: source}
    return {name: _columns(part, label, image_size) for name, part in parts.items()}


def rows_from(path: str | Path, shape: tuple[int, ...]) -> NDArray[Any]:
    """What a model is asked with, from one file.

    Args:
        path: A table (``.csv`` with a header line, ``.parquet``) of inputs only, an array
            (``.npy``), or an image, which is scaled to what the model takes and made grey or RGB.
        shape: Of one row as the model takes it; tells height, width and channels for an image.

    Raises:
        NotFoundError: There is no such file.
        DataError: It cannot be read, or the model takes no image.
    """
    source = Path(path)
    if not source.is_file():
        raise NotFoundError(f"there is no file {path}")
    kind = source.suffix.lower()
    if kind in _TABLES:
        return _matrix(_table(source, kind))
    if kind == ".npy":
        return _arrays(source)["x"]
    if kind in _IMAGES:
        return _image_row(source, shape)
    raise DataError(f"{source} holds no rows", hint=".csv, .parquet, .npy, .json or an image")


def _columns_of_table(table: pd.DataFrame, label: str) -> Columns:
    """The columns of a table; see `splits_from`."""
    if not label:
        return {str(name): _values(column, str(name)) for name, column in table.items()}
    if label not in table.columns:
        raise NotFoundError(f"there is no column {label!r}", hint=nearest(label, map(str, table)))
    labels = cast("pd.Series", table[label])
    return {"x": _matrix(table.drop(columns=label)), **_labels(_values(labels, label))}


def _content(folder: Path) -> Path:
    """What is in an unpacked archive: often a single file or folder."""
    entries = [entry for entry in folder.iterdir() if not _is_noise(entry)]
    if len(entries) != 1:
        return folder
    [only] = entries
    return folder if only.is_dir() and only.name in _SPLITS else only


def _is_noise(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"


def _parts(source: Path) -> dict[str, Path]:
    """The folders or files of splits that a folder has."""
    if not source.is_dir():
        return {}
    found: dict[str, Path] = {}
    for entry in sorted(source.iterdir()):
        name = entry.name if entry.is_dir() else entry.stem
        if name in _SPLITS and (entry.is_dir() or entry.suffix in (*_TABLES, *_ARRAYS)):
            if name in found:
                raise DataError(f"{source} has two splits called {name!r}")
            found[name] = entry
    return found if _WHOLE in found else {}


def _columns(source: Path, label: str, image_size: tuple[int, int] | None) -> Columns:
    if source.is_dir():
        return _images(source, image_size)
    kind = source.suffix.lower()
    if kind in _TABLES:
        return _columns_of_table(_table(source, kind), label)
    if kind in _ARRAYS:
        return _arrays(source)
    raise DataError(f"{source} cannot be a dataset", hint=_SUPPORTED)


def _table(source: Path, kind: str) -> pd.DataFrame:
    import pandas as pd

    read = pd.read_csv if kind == ".csv" else pd.read_parquet
    try:
        table = read(source)
    except (ValueError, OSError) as error:
        raise DataError(f"{source} is not a table: {error}") from None
    if table.empty:
        raise DataError(f"{source} has no rows")
    return table


def _arrays(source: Path) -> Columns:
    try:
        loaded = np.load(source, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded}
    except (ValueError, OSError, TypeError, EOFError) as error:
        raise DataError(f"{source} is not a file of plain arrays: {error}") from None


def _values(column: pd.Series, name: str) -> NDArray[Any]:
    """A column as numbers or texts."""
    if column.isna().any():
        raise DataError(f"column {name!r} has empty cells", hint="fill or drop those rows first")
    values = column.to_numpy()
    if values.dtype.kind in "iub":
        return values
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if all(isinstance(value, str) for value in values):
        return values.astype(str)
    raise DataError(f"column {name!r} has neither numbers nor texts")


def _matrix(table: pd.DataFrame) -> NDArray[Any]:
    """All columns side by side; a single column of texts stays one."""
    columns = {str(name): _values(column, str(name)) for name, column in table.items()}
    if not columns:
        raise DataError("the table has no column but the label")
    texts = [name for name, values in columns.items() if values.dtype.kind == "U"]
    if texts and len(columns) == 1:
        return columns[texts[0]]
    if texts:
        raise DataError(
            f"column {texts[0]!r} has texts, which are no numbers",
            hint="drop it or encode it, or upload without a label",
        )
    return np.stack([values.astype(np.float32) for values in columns.values()], axis=1)


def _labels(values: NDArray[Any]) -> Columns:
    if values.dtype.kind != "U":
        return {"y": values.astype(np.int64) if values.dtype.kind in "iub" else values}
    _, numbers = np.unique(values, return_inverse=True)
    return {"y": numbers.astype(np.int64), "label": values}


def _images(folder: Path, size: tuple[int, int] | None) -> Columns:
    classes = [entry for entry in sorted(folder.iterdir()) if entry.is_dir()]
    files = [
        (path, number)
        for number, entry in enumerate(each for each in classes if not _is_noise(each))
        for path in sorted(entry.iterdir())
        if path.suffix.lower() in _IMAGES
    ]
    if not files:
        hint = f"give each class a folder of its own; a dataset is {_SUPPORTED}"
        raise DataError(f"{folder} has no images", hint=hint)
    numbers = np.array([number for _, number in files], np.int64)
    names = np.array([path.parent.name for path, _ in files])
    return {"x": _pixels([path for path, _ in files], size), "y": numbers, "label": names}


def _pixels(paths: list[Path], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Images as one array: grey if all are, else RGB. One image at a time is in memory twice."""
    from PIL import Image

    try:
        with Image.open(paths[0]) as first:
            height, width = size or (first.height, first.width)
        mode = "L" if _all_grey(paths) else "RGB"
        pixels = np.empty((len(paths), height, width, 1 if mode == "L" else 3), np.uint8)
        for row, path in enumerate(paths):
            with Image.open(path) as image:
                if size is None and (image.height, image.width) != (height, width):
                    raise DataError(
                        f"{path} is {image.height}x{image.width} and others are {height}x{width}",
                        hint="give the size that all are to be scaled to",
                    )
                scaled = image.convert(mode).resize((width, height))
            pixels[row] = np.asarray(scaled, np.uint8).reshape(pixels.shape[1:])
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"an image cannot be read: {error}") from None
    return pixels


def _image_row(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """One image as a model takes it: ``(1, height, width)`` or ``(1, height, width, channels)``."""
    from PIL import Image

    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise DataError(f"the model takes rows of shape {shape}, which are no images")
    height, width = shape[:2]
    try:
        with Image.open(path) as image:
            mode = "RGB" if shape[2:] == (3,) else "L"
            scaled = image.convert(mode).resize((width, height))
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an image: {error}") from None
    return np.asarray(scaled, np.uint8).reshape(1, *shape)


def _all_grey(paths: Iterable[Path]) -> bool:
    from PIL import Image

    for path in paths:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "I;16"):
                return False
    return True
