"""MLServer: the CNN as its runtimes are written, with adaptive batching."""

from __future__ import annotations

import os

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Cnn(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        image = NumpyCodec.decode_input(payload.inputs[0]).astype("float32")
        (scores,) = self.session.run(None, {"image": image.reshape(-1, 1, 28, 28)})
        output = NumpyCodec.encode_output("logits", scores)
        return InferenceResponse(model_name=self.name, outputs=[output])
