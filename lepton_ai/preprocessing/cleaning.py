"""Cleaning tables and arrays before training: missing values, duplicates, outliers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import DataError, InvalidArgumentError
from lepton_ai.learn.declaration import nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["clip_outliers", "drop_duplicates", "drop_missing", "fill_missing"]

Table = TypeVar("Table", "pd.DataFrame", NDArray[Any])

_STRATEGIES = ("mean", "median", "most_frequent")


def fill_missing(x: Table, strategy: str = "median") -> Table:
    """Replace NaN (and None, in a table) by a value of its column.

    Args:
        x: ``(samples, features)``, an array or a table of numbers; text columns are filled with
            their most frequent value.
        strategy: ``'mean'``, ``'median'`` or ``'most_frequent'``.

    Returns:
        A copy of the same shape and kind.

    Raises:
        InvalidArgumentError: There is no such strategy; names the nearest.
        DataError: A column has no value at all.

    Example:
        >>> fill_missing(np.array([[1.0], [np.nan], [3.0]], dtype=np.float32)).tolist()
        [[1.0], [2.0], [3.0]]
    """
    if strategy not in _STRATEGIES:
        raise InvalidArgumentError(
            f"strategy {strategy!r} does not exist", hint=nearest(strategy, _STRATEGIES)
        )
    if isinstance(x, np.ndarray):
        return cast("Table", _imputed(x, strategy).astype(x.dtype, copy=False))
    columns = {
        name: _imputed(
            column.to_numpy()[:, np.newaxis],
            strategy if column.dtype.kind in "biuf" else "most_frequent",
        )[:, 0]
        for name, column in x.items()
    }
    return cast("Table", type(x)(columns, index=x.index))


def drop_missing(x: Table, y: Any) -> tuple[Table, Any]:
    """Leave out every sample with a NaN in its data or its label.

    Args:
        x: ``(samples, features)``, an array or a table.
        y: One label a sample.

    Returns:
        The samples kept and their labels.

    Example:
        >>> x, y = drop_missing(np.array([[1.0], [np.nan]]), np.array([0, 1]))
        >>> x.tolist(), y.tolist()
        ([[1.0]], [0])
    """
    import pandas as pd

    complete = ~(pd.DataFrame(np.asarray(x)).isna().any(axis=1) | pd.isna(np.asarray(y)))
    return _rows(x, y, complete.to_numpy())


def drop_duplicates(x: Table, y: Any) -> tuple[Table, Any]:
    """Leave out every sample that repeats an earlier one with the same label.

    Args:
        x: ``(samples, features)``, an array or a table.
        y: One label a sample.

    Returns:
        The samples kept, in their order, and their labels.

    Example:
        >>> x, y = drop_duplicates(np.array([[1], [2], [1]]), np.array([0, 0, 0]))
        >>> x.tolist()
        [[1], [2]]
    """
    import pandas as pd

    table = pd.DataFrame(np.asarray(x)).assign(label=np.asarray(y))
    first = (~table.duplicated()).to_numpy()
    return _rows(x, y, first)


def clip_outliers(x: Table, quartiles: float = 1.5) -> Table:
    """Bring values far outside a column's middle half back to its fence (Tukey, 1977).

    Args:
        x: ``(samples, features)``, an array or a table of numbers; NaN stays.
        quartiles: Distance of the fences from the first and third quartile, in units of their
            distance from each other.

    Returns:
        A copy of the same shape and kind.

    Example:
        >>> clip_outliers(np.array([[1.0], [2.0], [3.0], [100.0]])).max().round(2)
        np.float64(65.5)
    """
    values = np.asarray(x, dtype=np.float64)
    low, high = np.nanquantile(values, (0.25, 0.75), axis=0)
    margin = quartiles * (high - low)
    clipped = np.clip(values, low - margin, high + margin)
    if isinstance(x, np.ndarray):
        return cast("Table", clipped)
    return cast("Table", type(x)(clipped, index=x.index, columns=x.columns))


def _rows(x: Table, y: Any, kept: NDArray[np.bool_]) -> tuple[Table, Any]:
    return cast("Table", x[kept]), y[kept]


def _imputed(values: NDArray[Any], strategy: str) -> NDArray[Any]:
    import pandas as pd
    from sklearn.impute import SimpleImputer

    absent = pd.isna(values)
    missing: Any = np.nan
    if values.dtype == object:
        missing, values = None, values.copy()
        values[absent] = None
    if absent.all(axis=0).any():
        raise DataError("a column has no value to fill the missing ones from")
    return np.asarray(
        SimpleImputer(strategy=strategy, missing_values=missing).fit_transform(values)
    )
