"""pytriton: the CNN behind Triton's C++ front, batched by its dynamic batcher."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytriton
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

# Triton brings a Python that may be older than the library of ours, which expects another lock.
proxy = Path(pytriton.__file__).parent / "proxy" / "data.py"
anchor, lock = "import threading\n", "_tracker._resource_tracker._lock = threading._PyRLock()\n"
if lock not in proxy.read_text():
    added = f"{anchor}import multiprocessing.resource_tracker as _tracker\n{lock}"
    proxy.write_text(proxy.read_text().replace(anchor, added, 1))

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)


@batch
def infer(image: np.ndarray) -> list[np.ndarray]:
    return session.run(None, {"image": image})


if __name__ == "__main__":
    http, grpc, metrics = map(int, sys.argv[1:])
    config = TritonConfig(http_port=http, grpc_port=grpc, metrics_port=metrics)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="cnn",
            infer_func=infer,
            inputs=[Tensor(name="image", dtype=np.float32, shape=(1, 28, 28))],
            outputs=[Tensor(name="logits", dtype=np.float32, shape=(10,))],
            config=ModelConfig(
                max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=1000)
            ),
        )
        triton.serve()
