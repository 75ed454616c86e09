"""Ray Serve behind HAProxy: the CNN, batched for 2 ms: JSON at /json, bare bytes at /bytes."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import onnxruntime
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=512)
class Cnn:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def infer(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        return list(self.session.run(None, {"image": np.stack(rows)})[0])

    async def __call__(self, request: Request) -> object:
        if request.url.path.endswith("json"):
            data = (await request.json())["inputs"][0]["data"]
            row = await self.infer(np.array(data, np.float32).reshape(1, 28, 28))
            return {"outputs": [{"name": "logits", "data": row.tolist()}]}
        row = np.frombuffer(await request.body(), np.float32).reshape(1, 28, 28)
        return Response((await self.infer(row)).tobytes())


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Cnn.bind())
    while True:
        time.sleep(1)
