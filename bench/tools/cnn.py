"""The tutorial's CNN with random weights, requests to it in each protocol, and right answers."""

from __future__ import annotations

import json
import struct
import time
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lepton_ai.oip import Tensor
from lepton_ai.oip.messages import encode_infer_request
from lepton_ai.oip.rest import encode_request

MODEL = "cnn"
IMAGE = (1, 28, 28)


def make_cnn(path: Path) -> None:
    """Two convolutions, two dense layers."""
    rng = np.random.default_rng(7)
    shapes = {"w1": (32, 1, 3, 3), "b1": (32,), "w2": (64, 32, 3, 3), "b2": (64,)}
    shapes |= {"w3": (128, 1600), "b3": (128,), "w4": (10, 128), "b4": (10,)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) * 0.1).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["conv1"]),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("MaxPool", ["relu1"], ["pool1"], **pool),
        helper.make_node("Conv", ["pool1", "w2", "b2"], ["conv2"]),
        helper.make_node("Relu", ["conv2"], ["relu2"]),
        helper.make_node("MaxPool", ["relu2"], ["pool2"], **pool),
        helper.make_node("Flatten", ["pool2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["dense1"], transB=1),
        helper.make_node("Relu", ["dense1"], ["relu3"]),
        helper.make_node("Gemm", ["relu3", "w4", "b4"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *IMAGE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))


@cache
def images(rows: int) -> np.ndarray:
    # Few digits, so that JSON and binary hold the same numbers.
    return np.round(np.random.default_rng(1).random((rows, *IMAGE)), 6).astype(np.float32)


def binary_request(rows: int) -> tuple[bytes, int]:
    return encode_request([Tensor("image", "FP32", images(rows))], parameters={})


def json_request() -> bytes:
    data = [round(float(value), 6) for value in images(1).ravel()]
    spec = {"name": "image", "datatype": "FP32", "shape": [1, *IMAGE], "data": data}
    return json.dumps({"inputs": [spec]}).encode()


def array_request() -> bytes:
    """An image as nested lists, for servers whose arguments are arrays."""
    rows = [[round(float(value), 6) for value in row] for row in images(1)[0, 0]]
    return json.dumps({"image": [[rows]]}).encode()


def raw_request() -> bytes:
    """An image and nothing else, for servers that speak no protocol."""
    return images(1).tobytes()


def grpc_message() -> bytes:
    return encode_infer_request(MODEL, Tensor("image", "FP32", images(1)))


def framed(message: bytes) -> bytes:
    """A message as gRPC puts it into a body."""
    return struct.pack(">BI", 0, len(message)) + message


def right_answer(model: Path, rows: int) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(str(model)).run(None, {"image": images(rows)})[0]


def in_process_rows_per_s(model: Path, rows: int, threads: int, seconds: float) -> float:
    """What the engine alone computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options)
    batch = {"image": images(rows)}
    done, started_s = 0, time.monotonic()
    while (elapsed_s := time.monotonic() - started_s) < seconds:
        session.run(None, batch)
        done += rows
    return done / elapsed_s
