"""BentoML: the CNN with adaptive batching on two workers, requests neither logged nor counted."""

from __future__ import annotations

import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime
from bentoml.validators import DType


@bentoml.service(workers=2, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Cnn:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)

    @bentoml.api(batchable=True, max_batch_size=64, route="/array")
    async def infer(self, image: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        return self.session.run(None, {"image": image})[0]
