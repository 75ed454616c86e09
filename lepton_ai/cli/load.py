"""Sends a test set to a deployed model, several requests at a time, and keeps count."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from lepton_ai.cluster.profile import Profile
from lepton_ai.cluster.sync import Endpoint
from lepton_ai.oip import batches_of
from lepton_ai.oip.messages import MODEL_INFER, decode_infer_answer, encode_infer_request
from lepton_ai.oip.tensor import Tensor

__all__ = ["Load", "send_grpc", "send_rest"]

_BATCH_ROWS = 16
_AT_ONCE = 8
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Load:
    """What came of it.

    Attributes:
        answers: The model's outputs, first axis the rows sent.
        latencies_s: Of each request.
        seconds: For all of them.
        batch_rows: Rows in a request.
    """

    answers: NDArray[Any]
    latencies_s: NDArray[np.float64]
    seconds: float
    batch_rows: int = _BATCH_ROWS

    @property
    def requests_per_s(self) -> float:
        """Requests answered in a second."""
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Latency that `percent` of the requests stayed below, in milliseconds."""
        return float(np.percentile(self.latencies_s, percent)) * 1e3

    def accuracy(self, labels: NDArray[Any]) -> float:
        """Share of rows whose most probable class is the label."""
        return float(np.mean(self.answers.argmax(axis=-1) == labels))


def send_rest(endpoint: Endpoint, rows: NDArray[Any]) -> Load:
    """Send all rows by REST."""
    return _sent(endpoint.predict, batches_of(rows, _BATCH_ROWS))


def send_grpc(profile: Profile, model: str, tensor: Tensor) -> Load:
    """Send all rows of `tensor` by gRPC."""
    with _channel(profile) as channel:
        infer = channel.unary_unary(MODEL_INFER)
        metadata = (("authorization", f"Bearer {profile.api_key}"),)

        def ask(rows: NDArray[Any]) -> NDArray[Any]:
            request = encode_infer_request(model, tensor._replace(array=rows))
            answer: bytes = infer(request, _TIMEOUT_S, metadata)
            return decode_infer_answer(answer).array

        return _sent(ask, batches_of(tensor.array, _BATCH_ROWS))


def _channel(profile: Profile) -> grpc.Channel:
    if profile.channel_credentials is not None:
        return grpc.secure_channel(profile.address, profile.channel_credentials)
    return grpc.insecure_channel(profile.address)


def _sent(ask: Callable[[NDArray[Any]], NDArray[Any]], batches: list[NDArray[Any]]) -> Load:
    def timed(batch: NDArray[Any]) -> tuple[NDArray[Any], float]:
        began = time.perf_counter()
        answer = ask(batch)
        return answer, time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answers, latencies = zip(*threads.map(timed, batches), strict=True)
    seconds = time.perf_counter() - began
    return Load(np.concatenate(answers), np.array(latencies), seconds)
