"""Answers kept for requests that come again, found by a hash of what was asked."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEY_BYTES = 16
# Of an entry, beside the elements: key, list, arrays and their places in the dictionary.
_ENTRY_BYTES = 512


class AnswerCache:
    """The answers of one version of one model, up to a number of bytes; the least used go first.

    Args:
        limit_bytes: What keys and answers may take together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._answers: OrderedDict[bytes, tuple[list[NDArray[Any]], int]] = OrderedDict()
        self.used_bytes = 0

    def get(self, key: bytes) -> list[NDArray[Any]] | None:
        """The outputs that were kept; None when there are none."""
        kept = self._answers.get(key)
        if kept is None:
            return None
        self._answers.move_to_end(key)
        return kept[0]

    def put(self, key: bytes, outputs: Sequence[NDArray[Any]]) -> None:
        """Keep outputs: copies, as they are parts of a whole batch's."""
        size_bytes = _ENTRY_BYTES + sum(_size(output) for output in outputs)
        if key in self._answers or size_bytes > self._limit_bytes:
            return
        self._answers[key] = [output.copy() for output in outputs], size_bytes
        self.used_bytes += size_bytes
        while self.used_bytes > self._limit_bytes:
            _, (_, freed_bytes) = self._answers.popitem(last=False)
            self.used_bytes -= freed_bytes


def content_key(arrays: Sequence[NDArray[Any]]) -> bytes:
    """A hash of a request's inputs, equal for equal ones only."""
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    for array in arrays:
        digest.update(repr(array.shape).encode())
        if array.dtype == object:
            for element in array.ravel():
                digest.update(len(element).to_bytes(8, "little"))
                digest.update(element)
        else:
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _size(array: NDArray[Any]) -> int:
    if array.dtype != object:
        return array.nbytes
    return array.nbytes + sum(64 + 4 * len(element) for element in array.ravel())
