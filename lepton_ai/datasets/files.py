"""Datasets from files: tables, arrays, folders of images, and archives of these."""

from __future__ import annotations

import enum
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton_ai.datasets.archives import is_archive, unpack
from lepton_ai.datasets.readers import (
    IMAGE_SUFFIXES,
    arrays_of,
    class_names,
    csv_table,
    existing,
    image_pixels,
    images_below,
    parquet_table,
)
from lepton_ai.errors import DataError, NotFoundError
from lepton_ai.learn.declaration import nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["rows_from", "splits_from"]

_TABLES = {".csv": csv_table, ".parquet": parquet_table}
_ARRAYS = (".npy", ".npz")
_GREY = ("1", "L", "I;16")
_SPLITS = ("train", "validation", "test")
_WHOLE = "train"
_SUPPORTED = "a .csv, .parquet, .npy or .npz file, a folder of images, or an archive of these"

Columns = dict[str, NDArray[Any]]
Size = tuple[int, int] | None


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
    source = existing(path)
    if source.is_file() and is_archive(source):
        with tempfile.TemporaryDirectory(prefix="lepton-") as folder:
            unpack(source, Path(folder))
            return splits_from(_content(Path(folder)), label=label, image_size=image_size)
    parts = _parts(source) or {_WHOLE: source}
    kinds = {_kind(part) for part in parts.values()}
    if kinds == {_Kind.IMAGES}:
        return _image_splits(parts, image_size)
    if kinds == {_Kind.TABLE}:
        return _table_splits(parts, label)
    if kinds == {_Kind.ARRAYS}:
        return {name: arrays_of(part) for name, part in parts.items()}
    raise DataError(f"{source} has splits of different kinds", hint="tables, arrays or images")


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
        return _matrix(_values_of(_rows(source)))
    if kind == ".npy":
        return arrays_of(source)["x"]
    if kind in IMAGE_SUFFIXES:
        return _image_row(source, shape)
    raise DataError(f"{source} holds no rows", hint=".csv, .parquet, .npy, .json or an image")


class _Kind(enum.Enum):
    IMAGES = enum.auto()
    TABLE = enum.auto()
    ARRAYS = enum.auto()


def _kind(source: Path) -> _Kind:
    if source.is_dir():
        return _Kind.IMAGES
    if source.suffix.lower() in _TABLES:
        return _Kind.TABLE
    if source.suffix.lower() in _ARRAYS:
        return _Kind.ARRAYS
    raise DataError(f"{source} cannot be a dataset", hint=_SUPPORTED)


def _content(folder: Path) -> Path:
    """What is in an unpacked archive: often a single file or folder."""
    entries = [entry for entry in folder.iterdir() if not _is_noise(entry)]
    if len(entries) != 1:
        return folder
    [only] = entries
    # A single split or class stays in its folder.
    whole = only.is_dir() and (only.name in _SPLITS or not _has_folders_or_data(only))
    return folder if whole else only


def _has_folders_or_data(folder: Path) -> bool:
    return any(each.is_dir() or each.suffix in (*_TABLES, *_ARRAYS) for each in folder.iterdir())


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


def _table_splits(parts: Mapping[str, Path], label: str) -> dict[str, Columns]:
    """All splits with the columns of the training split in its order, and one number a label."""
    columns = {name: _values_of(_rows(part)) for name, part in parts.items()}
    order = list(columns[_WHOLE])
    for name, found in columns.items():
        if set(found) != set(order):
            differ = ", ".join(sorted(set(found) ^ set(order)))
            raise DataError(f"split {name!r} has other columns than {_WHOLE!r}: {differ}")
    if not label:
        return columns
    if label not in order:
        raise NotFoundError(f"there is no column {label!r}", hint=nearest(label, order))
    inputs = [name for name in order if name != label]
    labels = _numbered({name: found[label] for name, found in columns.items()})
    return {
        name: {"x": _matrix({each: found[each] for each in inputs}), **labels[name]}
        for name, found in columns.items()
    }


def _rows(source: Path) -> pd.DataFrame:
    table = _TABLES[source.suffix.lower()](source)
    if table.empty:
        raise DataError(f"{source} has no rows")
    return table


def _values_of(table: pd.DataFrame) -> Columns:
    return {str(name): _values(column, str(name)) for name, column in table.items()}


def _values(column: pd.Series, name: str) -> NDArray[Any]:
    """A column as numbers or texts."""
    if column.isna().any():
        raise DataError(f"column {name!r} has empty cells", hint="fill or drop those rows first")
    values = column.to_numpy()
    if values.dtype.kind in "iub":
        return values
    if values.dtype.kind == "f":
        return _float32(values, name)
    if all(isinstance(value, str) for value in values):
        return values.astype(str)
    raise DataError(f"column {name!r} has neither numbers nor texts")


def _float32(values: NDArray[Any], name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise DataError(f"column {name!r} has numbers too large for float32, or infinity")
    return narrow


def _matrix(columns: Columns) -> NDArray[Any]:
    """All columns side by side; a single column of texts stays one."""
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
    return np.stack([_float32(values, name) for name, values in columns.items()], axis=1)


def _numbered(labels: Mapping[str, NDArray[Any]]) -> dict[str, Columns]:
    """Labels of each split as numbers; the same text has the same number in all."""
    if not any(values.dtype.kind == "U" for values in labels.values()):
        return {
            name: {"y": values.astype(np.int64) if values.dtype.kind in "iub" else values}
            for name, values in labels.items()
        }
    texts = {name: values.astype(str) for name, values in labels.items()}
    names = np.unique(np.concatenate(list(texts.values())))
    return {
        name: {"y": np.searchsorted(names, values).astype(np.int64), "label": values}
        for name, values in texts.items()
    }


def _image_splits(parts: Mapping[str, Path], size: Size) -> dict[str, Columns]:
    """All splits with one number for each class, and images of one kind and size."""
    folders = {name for part in parts.values() for name in class_names(part)}
    classes = sorted(name for name in folders if not _is_noise(Path(name)))
    files = {name: images_below(part, classes) for name, part in parts.items()}
    for part in parts.values():
        _check_all_images(part, classes)
    shape = _common_shape([path for found in files.values() for path, _ in found], size)
    return {name: _image_columns(found, classes, shape) for name, found in files.items()}


def _check_all_images(folder: Path, classes: Sequence[str]) -> None:
    for name in classes:
        for path in (folder / name).glob("*"):
            if path.suffix.lower() not in IMAGE_SUFFIXES and not _is_noise(path):
                hint = f"one of {', '.join(sorted(IMAGE_SUFFIXES))}; remove what is no image"
                raise DataError(f"{path} is not an image that can be read", hint=hint)


def _common_shape(paths: Sequence[Path], size: Size) -> tuple[int, int, int]:
    """Height, width and channels of all images: grey if all are, else RGB."""
    from PIL import Image

    channels, common = 1, size
    for path in paths:
        try:
            with Image.open(path) as image:
                mode, found = image.mode, (image.height, image.width)
        except (OSError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} is not an image: {error}") from None
        common = common or found
        if size is None and found != common:
            raise DataError(
                f"{path} is {found[0]}x{found[1]} and others are {common[0]}x{common[1]}",
                hint="give the size that all are to be scaled to",
            )
        if mode not in _GREY:
            channels = 3
    height, width = cast("tuple[int, int]", common)
    return height, width, channels


def _image_columns(
    files: Sequence[tuple[Path, int]], classes: Sequence[str], shape: tuple[int, int, int]
) -> Columns:
    height, width, channels = shape
    pixels = np.empty((len(files), *shape), np.uint8)
    for row, (path, _) in enumerate(files):
        pixels[row] = image_pixels(path, (height, width), channels)
    numbers = np.array([number for _, number in files], np.int64)
    return {"x": pixels, "y": numbers, "label": np.array(classes)[numbers]}


def _image_row(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """One image as a model takes it: ``(1, height, width)`` or ``(1, height, width, channels)``."""
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise DataError(f"the model takes rows of shape {shape}, which are no images")
    channels = shape[2] if len(shape) == 3 else 1
    return image_pixels(path, (shape[0], shape[1]), channels).reshape(1, *shape)
