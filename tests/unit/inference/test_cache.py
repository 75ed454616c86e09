"""Which requests count as the same, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_worker.inference.cache import AnswerCache, content_key

A = np.arange(6, dtype=np.float32)


def texts(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([A], [A + 1]),
        ([A], [A.reshape(2, 3)]),
        ([A.reshape(3, 2)], [A.reshape(2, 3)]),
        ([A[:3], A[3:]], [A[:2], A[2:]]),
        ([texts(b"ab", b"c")], [texts(b"a", b"bc")]),
    ],
)
def test_other_content_is_another_request(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    assert content_key(left) != content_key(right)
    assert content_key(left) == content_key([array.copy() for array in left])


def test_the_least_used_answers_go_when_there_is_no_room() -> None:
    cache = AnswerCache(3_000)
    for key in (b"1", b"2", b"3"):
        cache.put(key, [np.zeros(50)])  # 400 bytes, and what the entry itself takes
    assert cache.get(b"1") is not None
    cache.put(b"4", [np.zeros(50)])
    assert [cache.get(key) is not None for key in (b"1", b"2", b"3", b"4")] == [
        True,
        False,
        True,
        True,
    ]
    assert cache.used_bytes <= 3_000


def test_an_answer_larger_than_the_cache_is_not_kept() -> None:
    cache = AnswerCache(1_000)
    cache.put(b"1", [np.zeros(1000)])
    assert cache.get(b"1") is None
    assert cache.used_bytes == 0


def test_what_is_kept_holds_no_batch_in_memory() -> None:
    cache = AnswerCache(10_000)
    batch = np.zeros((100, 2))
    cache.put(b"1", [batch[:1]])
    kept = cache.get(b"1")
    assert kept is not None
    assert kept[0].base is None
