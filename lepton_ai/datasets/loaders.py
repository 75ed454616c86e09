"""Public data sets as arrays, split into training and test samples."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_ai.datasets.download import locate
from lepton_ai.datasets.sources import FASHION_MNIST, HOUSING, MNIST, SMS_SPAM, Source
from lepton_ai.errors import InvalidArgumentError

__all__ = [
    "HOUSING_FEATURES",
    "load_digits",
    "load_fashion_mnist",
    "load_housing",
    "load_mnist",
    "load_sms_spam",
]

Array = NDArray[Any]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

HOUSING_FEATURES = (
    "median_income",
    "house_age",
    "average_rooms",
    "average_bedrooms",
    "population",
    "average_occupancy",
    "latitude",
    "longitude",
)
"""The columns of `load_housing`: income in 10,000 dollars, age in years, position in degrees."""

_IDX_HEADER_BYTES = {1: 8, 3: 16}


def load_mnist(split: str) -> tuple[Images, Labels]:
    """Handwritten digits (LeCun, Cortes and Burges; CC BY-SA 3.0).

    Read from the folder that ``LEPTON_DATASETS`` names or the cache, else downloaded (11 MB).

    Args:
        split: ``'train'`` for 60,000 samples or ``'test'`` for 10,000.

    Returns:
        Images ``(samples, 28, 28)`` uint8, 0 (paper) to 255 (ink), and labels ``(samples,)`` int64,
        0 to 9.

    Raises:
        UnavailableError: Not here and not to be downloaded; says which file to put where.
        DataCorruptError: A file does not have the known digest.
        InvalidArgumentError: There is no such split.

    Example:
        >>> images, labels = load_mnist("test")
        >>> images.shape, labels.shape
        ((10000, 28, 28), (10000,))
    """
    images, labels = MNIST[_split(split)]
    return _idx(images, 3), _idx(labels, 1).astype(np.int64)


def load_fashion_mnist(split: str) -> tuple[Images, Labels]:
    """Ten kinds of clothes (Xiao, Rasul and Vollgraf, Zalando Research, 2017; MIT licence).

    Read from the folder that ``LEPTON_DATASETS`` names or the cache, else downloaded (31 MB).

    Args:
        split: ``'train'`` for 60,000 samples or ``'test'`` for 10,000.

    Returns:
        Images ``(samples, 28, 28)`` uint8, 0 to 255, and labels ``(samples,)`` int64, 0 to 9.

    Raises:
        UnavailableError: Not here and not to be downloaded; says which file to put where.
        DataCorruptError: A file does not have the known digest.
        InvalidArgumentError: There is no such split.

    Example:
        >>> images, labels = load_fashion_mnist("test")
        >>> images.shape, labels.shape
        ((10000, 28, 28), (10000,))
    """
    images, labels = FASHION_MNIST[_split(split)]
    return _idx(images, 3), _idx(labels, 1).astype(np.int64)


def load_digits(split: str) -> tuple[Images, Labels]:
    """Small handwritten digits, which ship with scikit-learn (Alpaydin and Kaynak, 1998).

    Args:
        split: ``'train'`` for four fifths of 1,797 samples or ``'test'`` for the rest.

    Returns:
        Images ``(samples, 8, 8)`` uint8, 0 (paper) to 16 (ink), and labels ``(samples,)`` int64,
        0 to 9.

    Raises:
        InvalidArgumentError: There is no such split.

    Example:
        >>> images, labels = load_digits("test")
        >>> images.shape, labels.shape
        ((360, 8, 8), (360,))
    """
    from sklearn.datasets import load_digits as load

    _split(split)
    bundle: Any = load()
    kept = _fifth(bundle.target, split)
    return bundle.images[kept].astype(np.uint8), bundle.target[kept].astype(np.int64)


def load_sms_spam(split: str) -> tuple[list[str], Labels]:
    """The SMS Spam Collection (Almeida, Gómez Hidalgo and Yamakami, 2011; CC BY 4.0).

    Read from the folder that ``LEPTON_DATASETS`` names or the cache, else downloaded (200 kB).

    Args:
        split: ``'train'`` for four fifths of 5,574 messages, ``'test'`` for the rest; both hold the
            same share of spam.

    Returns:
        Texts, and labels ``(samples,)`` int64: 1 for spam, 0 for the rest.

    Raises:
        UnavailableError: Not here and not to be downloaded; says which file to put where.
        DataCorruptError: The file does not have the known digest.
        InvalidArgumentError: There is no such split.

    Example:
        >>> texts, labels = load_sms_spam("test")
        >>> len(texts), int(labels.sum())
        (1115, 149)
    """
    _split(split)
    lines = locate(SMS_SPAM).read_text("utf-8").rstrip("\n").split("\n")
    labels, texts = zip(*(line.split("\t", 1) for line in lines), strict=True)
    spam = np.array([label == "spam" for label in labels], np.int64)
    kept = _fifth(spam, split)
    return [texts[index] for index in kept], spam[kept]


def load_housing(split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """House prices by block in California, 1990 census (Pace and Barry, 1997).

    Read from the folder that ``LEPTON_DATASETS`` names or the cache, else downloaded (440 kB).

    Args:
        split: ``'train'`` for four fifths of 20,640 blocks or ``'test'`` for the rest.

    Returns:
        Features ``(samples, 8)`` float32, named by `HOUSING_FEATURES`, and median prices
        ``(samples,)`` float32 in 100,000 dollars.

    Raises:
        UnavailableError: Not here and not to be downloaded; says which file to put where.
        DataCorruptError: The file does not have the known digest.
        InvalidArgumentError: There is no such split.

    Example:
        >>> features, prices = load_housing("test")
        >>> features.shape, prices.shape
        ((4128, 8), (4128,))
    """
    _split(split)
    features, prices = parse_housing(locate(HOUSING))
    kept = _rows_of(len(prices), split)
    return features[kept], prices[kept]


def parse_housing(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features and prices, as `load_housing` describes them, from the published archive."""
    with tarfile.open(path) as archive:
        member = archive.extractfile("CaliforniaHousing/cal_housing.data")
        assert member is not None
        table = np.loadtxt(io.BytesIO(member.read()), delimiter=",")
    longitude, latitude, age, rooms, bedrooms, people, households, income, price = table.T
    features = np.column_stack(
        [
            income,
            age,
            rooms / households,
            bedrooms / households,
            people,
            people / households,
            latitude,
            longitude,
        ]
    )
    return features.astype(np.float32), (price / 100_000).astype(np.float32)


def _split(split: str) -> str:
    if split not in ("train", "test"):
        raise InvalidArgumentError(f"split {split!r} does not exist", hint="'train' or 'test'")
    return split


def _idx(source: Source, axes: int) -> Images:
    """The array in an IDX file: after the header, whose sizes are big-endian, its bytes."""
    content = gzip.decompress(locate(source).read_bytes())
    shape = np.frombuffer(content, ">i4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=_IDX_HEADER_BYTES[axes]).reshape(shape).copy()


def _fifth(labels: Array, split: str) -> Array:
    """Indices of a split that holds every class in its share, the same on every machine."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    return np.sort(train if split == "train" else test)


def _rows_of(rows: int, split: str) -> Array:
    order = np.random.default_rng(0).permutation(rows)
    return np.sort(order[rows // 5 :] if split == "train" else order[: rows // 5])
