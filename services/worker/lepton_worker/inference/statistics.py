"""Counts and times of one model's requests, as the protocol and dashboards report them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Duration:
    """How often something happened and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count something that took `ns` nanoseconds (in all, if it happened several times)."""
        self.count += count
        self.ns += ns

    def report(self) -> dict[str, int]:
        """As the protocol writes it."""
        return {"count": self.count, "ns": self.ns}


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """Nanoseconds that one batch spent in each phase."""

    input_ns: int
    infer_ns: int
    output_ns: int


@dataclass(slots=True)
class _Phases:
    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)

    def add(self, times: BatchTimes, count: int) -> None:
        self.input.add(times.input_ns * count, count)
        self.infer.add(times.infer_ns * count, count)
        self.output.add(times.output_ns * count, count)

    def report(self) -> dict[str, Any]:
        return {
            "compute_input": self.input.report(),
            "compute_infer": self.infer.report(),
            "compute_output": self.output.report(),
        }


@dataclass(slots=True)
class ModelStatistics:
    """What one version of one model did since it was loaded. Used on the event loop only."""

    success: Duration = field(default_factory=Duration)
    failure: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)
    rows: int = 0
    batches: int = 0
    last_inference_ms: int = 0
    _requests: _Phases = field(default_factory=_Phases)
    _by_size: dict[int, _Phases] = field(default_factory=dict[int, _Phases])

    def record_batch(self, requests: int, rows: int, times: BatchTimes) -> None:
        """Count a batch that was computed for `requests` requests of `rows` rows in all."""
        self.rows += rows
        self.batches += 1
        self.last_inference_ms = time.time_ns() // 1_000_000
        self._requests.add(times, requests)
        self._by_size.setdefault(rows, _Phases()).add(times, 1)

    def report(self) -> dict[str, Any]:
        """The fields of the protocol's `ModelStatistics`, less name and version."""
        return {
            "last_inference": self.last_inference_ms,
            "inference_count": self.rows,
            "execution_count": self.batches,
            "inference_stats": {
                "success": self.success.report(),
                "fail": self.failure.report(),
                "queue": self.queue.report(),
                **self._requests.report(),
                "cache_hit": self.cache_hit.report(),
                "cache_miss": self.cache_miss.report(),
            },
            "batch_stats": [
                {"batch_size": rows, **phases.report()}
                for rows, phases in sorted(self._by_size.items())
            ],
        }

    def totals_us(self) -> Mapping[str, float]:
        """Summed microseconds by phase, under the names that dashboards know."""
        return {
            "request": (self.success.ns + self.failure.ns) / 1000,
            "queue": self.queue.ns / 1000,
            "compute_input": self._requests.input.ns / 1000,
            "compute_infer": self._requests.infer.ns / 1000,
            "compute_output": self._requests.output.ns / 1000,
        }
