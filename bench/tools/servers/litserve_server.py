"""LitServe: the CNN, batched for 5 ms, behind two processes that parse, over ZeroMQ."""

from __future__ import annotations

import os
import sys

import litserve
import numpy as np
import onnxruntime


class Cnn(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)

    # A type here would be compared with one, and is a text in this file.
    def decode_request(self, request) -> np.ndarray:
        return np.array(request["inputs"][0]["data"], np.float32).reshape(1, 28, 28)

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"image": images})[0]

    def encode_response(self, scores: np.ndarray) -> dict:
        return {"outputs": [{"name": "logits", "data": scores.tolist()}]}


if __name__ == "__main__":
    api = Cnn(max_batch_size=64, batch_timeout=0.005, api_path="/json")
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=2,
        log_level="warning",
        generate_client_file=False,
    )
