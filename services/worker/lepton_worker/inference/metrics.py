"""Prometheus metrics under the names that Triton's dashboards ask for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from lepton_worker.inference.repository import ReadyModel, Repository

CONTENT_TYPE = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_PHASES = ("request", "queue", "compute_input", "compute_infer", "compute_output")


class InferenceCollector(Collector):
    """Reads the statistics of every ready model when it is scraped, and never in between."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        models = self._repository.ready_models()
        statistics = [(model, model.lane.statistics) for model in models]
        yield _metric(
            "nv_inference_request_success",
            "Requests answered",
            [(model, s.success.count) for model, s in statistics],
        )
        yield _metric(
            "nv_inference_request_failure",
            "Requests that failed",
            [(model, s.failure.count) for model, s in statistics],
        )
        yield _metric(
            "nv_inference_count", "Rows answered", [(model, s.rows) for model, s in statistics]
        )
        yield _metric(
            "nv_inference_exec_count",
            "Batches run",
            [(model, s.batches) for model, s in statistics],
        )
        yield _metric(
            "nv_inference_pending_request_count",
            "Requests waiting",
            [(model, model.lane.pending) for model in models],
        )
        totals = [(model, s.totals_us()) for model, s in statistics]
        for phase in _PHASES:
            yield _metric(
                f"nv_inference_{phase}_duration_us",
                f"Microseconds of phase {phase}, summed",
                [(model, by_phase[phase]) for model, by_phase in totals],
            )
        yield from _lepton_metrics(models)


def _lepton_metrics(models: list[ReadyModel]) -> Iterable[Metric]:
    yield _metric(
        "lepton_model_memory_bytes",
        "Memory the model takes now; 0 while it is unloaded until it is asked for",
        [(model, model.lane.size_bytes if model.lane.model else 0) for model in models],
    )
    yield _metric(
        "lepton_model_loads",
        "Loads because the model was asked for",
        [(model, model.lane.loads) for model in models],
    )


def expose(repository: Repository) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry()
    registry.register(InferenceCollector(repository))
    return generate_latest(registry)


def _metric(name: str, text: str, samples: list[tuple[ReadyModel, float]]) -> Metric:
    # As counters these would be renamed: prometheus_client appends `_total` to a counter's name.
    metric = Metric(name, text, "gauge")
    for model, value in samples:
        labels = {"model": model.name, "version": model.version}
        metric.add_sample(name, labels, value)
    return metric
