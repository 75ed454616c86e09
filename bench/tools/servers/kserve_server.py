"""KServe: the CNN behind its Python server, which has no batcher of its own."""

from __future__ import annotations

import os
from functools import cached_property

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid


class Cnn(Model):
    # Made where it is used: the model itself travels to each worker.
    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)

    def predict(
        self, payload: InferRequest, headers: dict[str, str] | None = None
    ) -> InferResponse:
        (scores,) = self.session.run(None, {"image": payload.inputs[0].as_numpy()})
        output = InferOutput("logits", list(scores.shape), "FP32")
        output.set_data_from_numpy(scores, binary_data=payload.use_binary_outputs)
        return InferResponse(
            response_id=payload.id or generate_uuid(),
            model_name=self.name,
            model_version="1",
            infer_outputs=[output],
            use_binary_outputs=payload.use_binary_outputs,
        )


if __name__ == "__main__":
    model = Cnn("cnn")
    model.load()
    ModelServer().start([model])
