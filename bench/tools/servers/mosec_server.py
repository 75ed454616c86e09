"""Mosec: the CNN behind its Rust front, batched for 2 ms: JSON at /json, bare bytes at /bytes."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
from mosec import Runtime, Server, Worker


def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)


class Bytes(Worker):
    def __init__(self) -> None:
        self.session = session()

    def deserialize(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.float32).reshape(1, 28, 28)

    def serialize(self, data: np.ndarray) -> bytes:
        return data.tobytes()

    def forward(self, data: list[np.ndarray]) -> list[np.ndarray]:
        return list(self.session.run(None, {"image": np.stack(data)})[0])


class Json(Worker):
    def __init__(self) -> None:
        self.session = session()

    def forward(self, data: list[dict]) -> list[dict]:
        rows = [np.array(one["inputs"][0]["data"], np.float32).reshape(1, 28, 28) for one in data]
        answers = self.session.run(None, {"image": np.stack(rows)})[0]
        return [{"outputs": [{"name": "logits", "data": row.tolist()}]} for row in answers]


if __name__ == "__main__":
    server = Server()
    batched = {"max_batch_size": 64, "max_wait_time": 2}
    server.register_runtime(
        {"/json": [Runtime(Json, **batched)], "/bytes": [Runtime(Bytes, **batched)]}
    )
    server.run()
