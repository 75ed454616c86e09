"""One batch: its rows joined, computed, and split again."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import InternalError, LeptonError
from lepton_worker.inference.model import Servable
from lepton_worker.inference.queue import Outcome, Work
from lepton_worker.inference.statistics import BatchTimes

__all__ = ["Outcomes", "compute"]

_log = logging.getLogger(__name__)

Outcomes = list[Outcome]


def compute(model: Servable | None, label: str, works: list[Work]) -> tuple[Outcomes, BatchTimes]:
    """Compute a batch; where it fails, each of its works alone, so that one spoils only its own."""
    started_ns = time.monotonic_ns()
    outcomes: Outcomes
    try:
        return _compute_together(model, works, started_ns)
    except Exception as error:  # noqa: BLE001 - whatever a model raises becomes its caller's answer
        if len(works) > 1:
            outcomes = [compute(model, label, [work])[0][0] for work in works]
        else:
            outcomes = [_failure(label, error)]
        return outcomes, BatchTimes(0, time.monotonic_ns() - started_ns, 0)


def _compute_together(
    model: Servable | None, works: list[Work], started_ns: int
) -> tuple[Outcomes, BatchTimes]:
    if not works:
        return [], BatchTimes(0, 0, 0)
    assert model is not None  # somebody waits, so it does not sleep
    arrays = [_join(parts) for parts in _columns(works)]
    stacked_ns = time.monotonic_ns()
    outputs = model.run(arrays)
    computed_ns = time.monotonic_ns()
    outcomes = _split(works, outputs)
    return outcomes, BatchTimes(
        stacked_ns - started_ns, computed_ns - stacked_ns, time.monotonic_ns() - computed_ns
    )


def _columns(works: list[Work]) -> list[tuple[NDArray[Any], ...]]:
    return list(zip(*(work.arrays for work in works), strict=True))


def _join(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """A copy even of a single part: arrays on top of a received body may not be aligned.

    The bytes are joined, not the arrays: NumPy lets other threads run for every part it copies,
    and to have its turn again each time costs the batch milliseconds under load.
    """
    first = parts[0]
    if first.ndim == 0:
        return first.copy()
    if first.dtype.hasobject:
        return np.concatenate(parts)
    rows = sum(map(len, parts))
    return np.frombuffer(b"".join([part.data for part in parts]), first.dtype).reshape(
        rows, *first.shape[1:]
    )


def _split(works: list[Work], outputs: list[NDArray[Any]]) -> Outcomes:
    if len(works) == 1:
        return [outputs]
    outcomes: Outcomes = []
    start = 0
    for work in works:
        end = start + work.rows
        outcomes.append([output[start:end] for output in outputs])
        start = end
    return outcomes


def _failure(label: str, error: Exception) -> LeptonError:
    if isinstance(error, LeptonError):
        return error
    _log.error("model %s failed: %s", label, error)
    return InternalError(f"model {label} failed on this request")
