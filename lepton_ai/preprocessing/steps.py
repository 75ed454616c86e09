"""Preprocessing that travels with a model: fitted on its training data, exported in front of it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from lepton_ai.errors import DataError, NotFittedError
from lepton_ai.learn.declaration import boolean, checked, fraction, number, numbers, texts, whole

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "STEPS",
    "UNKNOWN_WORDS",
    "Augmentation",
    "MinMaxScaler",
    "PreprocessingStep",
    "Scaler",
    "StandardScaler",
    "Tokenizer",
]

Array = NDArray[Any]

_ROWS_AT_ONCE = 1 << 18


class PreprocessingStep(ABC):
    """One step between raw data and a model's first layer."""

    @property
    def fitted(self) -> bool:
        """Whether it knows its parameters."""
        return True

    def fit(self, x: Any) -> Self:
        """A copy that has learnt its parameters from `x`, first axis the samples."""
        return self

    @abstractmethod
    def transform(self, x: Any) -> Array:
        """`x` as the next step takes it."""


@dataclass(frozen=True, kw_only=True)
class Scaler(PreprocessingStep):
    """Maps each feature (the last axis) to ``(x - shift) * scale + low``.

    Args:
        shift: One number a feature, fitted.
        scale: One number a feature, fitted.
        dtype: Name of the dtype of the raw data, fitted; a served model takes that dtype.
    """

    shift: tuple[float, ...] | None = field(default=None, metadata=checked(numbers))
    scale: tuple[float, ...] | None = field(default=None, metadata=checked(numbers))
    dtype: str = field(default="float32", metadata=checked(str))

    @property
    def base(self) -> float:
        """What `shift` is mapped to."""
        return 0.0

    @property
    @override
    def fitted(self) -> bool:
        return self.shift is not None

    @override
    def fit(self, x: Array) -> Self:
        shift, scale = self._learn(_row_blocks(np.asarray(x)))
        dtype = "uint8" if np.asarray(x).dtype == np.uint8 else "float32"
        return replace(self, shift=tuple(shift.tolist()), scale=tuple(scale.tolist()), dtype=dtype)

    @override
    def transform(self, x: Array) -> Array:
        values = np.asarray(x, dtype=np.float32)
        shift, scale = self._parameters(values.shape[-1])
        return (values - shift) * scale + np.float32(self.base)

    def inverse(self, x: Array) -> Array:
        """What `transform` was given, from what it returned; float32."""
        values = np.asarray(x, dtype=np.float32)
        shift, scale = self._parameters(values.shape[-1])
        return (values - np.float32(self.base)) / scale + shift

    def _parameters(self, features: int) -> tuple[Array, Array]:
        if self.shift is None or self.scale is None:
            raise NotFittedError(
                f"{type(self).__name__} has no parameters yet", hint="call fit first"
            )
        if features != len(self.shift):
            raise DataError(f"data has {features} features", hint=f"fitted on {len(self.shift)}")
        return np.asarray(self.shift, np.float32), np.asarray(self.scale, np.float32)

    @abstractmethod
    def _learn(self, blocks: Iterator[Array]) -> tuple[Array, Array]:
        """Shift and scale from blocks of ``(rows, features)``."""


@dataclass(frozen=True, kw_only=True)
class MinMaxScaler(Scaler):
    """Scales each feature so that its smallest value becomes `low` and its largest `high`.

    Args:
        low: Lower end, as 0 or -1.
        high: Upper end.

    Example:
        >>> MinMaxScaler(low=-1).fit([[0.0], [10.0]]).transform([[5.0]])
        array([[0.]], dtype=float32)
    """

    low: float = field(default=0.0, metadata=checked(number()))
    high: float = field(default=1.0, metadata=checked(number()))

    @property
    @override
    def base(self) -> float:
        return self.low

    def _learn(self, blocks: Iterator[Array]) -> tuple[Array, Array]:
        from sklearn import preprocessing

        scaler = preprocessing.MinMaxScaler((self.low, self.high))
        for block in blocks:
            scaler.partial_fit(block)
        return scaler.data_min_, scaler.scale_


@dataclass(frozen=True, kw_only=True)
class StandardScaler(Scaler):
    """Scales each feature to mean zero and standard deviation one.

    Example:
        >>> StandardScaler().fit([[0.0], [2.0]]).transform([[2.0]])
        array([[1.]], dtype=float32)
    """

    def _learn(self, blocks: Iterator[Array]) -> tuple[Array, Array]:
        from sklearn import preprocessing

        scaler = preprocessing.StandardScaler()
        for block in blocks:
            scaler.partial_fit(block)
        return np.asarray(scaler.mean_), 1 / np.asarray(scaler.scale_)


UNKNOWN_WORDS = (
    r"[^0-9]*[0-9]{5,}.*",  # such as a telephone number
    r".*[£$€][0-9].*",  # money
    r".*(www\.|http|\.com).*",  # an address
    r".*[0-9].*",  # any other number
    r".*!",
    r"[^a-z0-9]+",  # only punctuation, or not Latin
    r".*",
)
"""What a word outside the vocabulary may look like; the first that fits it decides its number.

Patterns are of whole words, their dot any character; Python's `re` and RE2, which ONNX Runtime
uses, agree on all of them.
"""


@dataclass(frozen=True, kw_only=True)
class Tokenizer(PreprocessingStep):
    """Turns each text into `steps` whole numbers, one a word.

    Words are what stands between spaces, with A to Z made small. Number 0 is padding,
    which comes first so that a recurrent layer ends on the text's last word. The next few numbers
    are for words outside the vocabulary, by what they look like: a long number, money, an address.
    Longer texts lose their end.

    Args:
        vocabulary_size: Numbers to use at most, padding and unknown words included.
        steps: Length of each row.
        minimum_count: A word must occur this often to get a number of its own.
        vocabulary: Words by number, the commonest first; fitted.

    Example:
        >>> tokenizer = Tokenizer(steps=3).fit(["to be or to go", "be"])
        >>> tokenizer.vocabulary
        ('be', 'to')
        >>> tokenizer.transform(["Be it"])
        array([[0, 8, 7]])
    """

    vocabulary_size: int = field(default=10_000, metadata=checked(whole(len(UNKNOWN_WORDS) + 2)))
    steps: int = field(default=64, metadata=checked(whole(1)))
    minimum_count: int = field(default=2, metadata=checked(whole(1)))
    vocabulary: tuple[str, ...] | None = field(default=None, metadata=checked(texts))

    @property
    @override
    def fitted(self) -> bool:
        return self.vocabulary is not None

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each word of the vocabulary.

        Raises:
            NotFittedError: There is no vocabulary yet.
        """
        if self.vocabulary is None:
            raise NotFittedError("Tokenizer has no vocabulary yet", hint="call fit first")
        return {word: number for number, word in enumerate(self.vocabulary, _FIRST_KNOWN)}

    @override
    def fit(self, x: Iterable[str]) -> Self:
        counts = Counter(word for text in x for word in _words(text))
        frequent = [word for word, count in counts.items() if count >= self.minimum_count]
        commonest = sorted(frequent, key=lambda word: (-counts[word], word))
        return replace(self, vocabulary=tuple(commonest[: self.vocabulary_size - _FIRST_KNOWN]))

    @override
    def transform(self, x: Sequence[str]) -> Array:
        numbers = self.numbers
        rows = np.zeros((len(x), self.steps), np.int64)
        for row, text in zip(rows, x, strict=True):
            words = _words(text)[: self.steps]
            row[self.steps - len(words) :] = [numbers.get(word) or _unknown(word) for word in words]
        return rows


@dataclass(frozen=True, kw_only=True)
class Augmentation(PreprocessingStep):
    """Random changes to each batch of images, while training only.

    Args:
        rotate: Largest turn either way, in degrees.
        scale: Largest change of size either way, as a share.
        crop: Largest shift either way, in pixels, as if cropped from a padded image.
        flip: Whether half the images are mirrored left to right.
        noise: Standard deviation of normal noise added to each value.

    Example:
        >>> images = np.zeros((2, 8, 8, 1), np.float32)
        >>> Augmentation(rotate=10, noise=0.1).transform(images).shape
        (2, 8, 8, 1)
    """

    rotate: float = field(default=0.0, metadata=checked(number(0)))
    scale: float = field(default=0.0, metadata=checked(fraction))
    crop: int = field(default=0, metadata=checked(whole(0)))
    flip: bool = field(default=False, metadata=checked(boolean))
    noise: float = field(default=0.0, metadata=checked(number(0)))

    def transform(self, x: Array) -> Array:
        """One random change of every image of ``(samples, height, width, channels)``, float32."""
        import torch

        images = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        changed = self.build(images.shape[1:3])(images.permute(0, 3, 1, 2))
        return changed.permute(0, 2, 3, 1).numpy()

    def build(self, size: tuple[int, ...]) -> nn.Module:
        """The module over ``(batch, channels, height, width)`` images of ``size`` pixels."""
        from kornia import augmentation

        changes: list[Any] = []
        if self.rotate or self.scale:
            scale = (1 - self.scale, 1 + self.scale)
            changes.append(augmentation.RandomAffine(self.rotate, scale=scale, p=1.0))
        if self.crop:
            changes.append(augmentation.RandomCrop((size[0], size[1]), padding=self.crop, p=1.0))
        if self.flip:
            changes.append(augmentation.RandomHorizontalFlip(p=0.5))
        if self.noise:
            changes.append(augmentation.RandomGaussianNoise(std=self.noise, p=1.0))
        return augmentation.AugmentationSequential(*changes, data_keys=["input"])


STEPS: dict[str, type[PreprocessingStep]] = {
    "min_max_scaler": MinMaxScaler,
    "standard_scaler": StandardScaler,
    "tokenizer": Tokenizer,
    "augmentation": Augmentation,
}

_SMALL = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


_UNKNOWN = tuple(re.compile(pattern, re.DOTALL) for pattern in UNKNOWN_WORDS)
_FIRST_KNOWN = 1 + len(UNKNOWN_WORDS)


def _unknown(word: str) -> int:
    return next(number for number, like in enumerate(_UNKNOWN, 1) if like.fullmatch(word))


def _words(text: object) -> list[str]:
    if not isinstance(text, str):
        raise DataError(f"a text is {text!r}", hint="a tokenizer takes strings")
    return [word for word in text.translate(_SMALL).split(" ") if word]


def _row_blocks(x: Array) -> Iterator[Array]:
    """`x` as blocks of ``(rows, features)``, so that no float64 copy of all of it is made."""
    rows = x.reshape(-1, x.shape[-1])
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]
