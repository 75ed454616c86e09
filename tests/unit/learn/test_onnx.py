"""Exported models take raw input and give what `predict` gives."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from lepton_ai import CNN, RNN, Sequential, from_torch
from lepton_ai.errors import InternalError
from lepton_ai.learn import onnx_export
from lepton_ai.preprocessing import Augmentation, MinMaxScaler, StandardScaler, Tokenizer


def run(path, x):
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert (given.name, output.name) == ("input", "output")
    return given.type, session.run(["output"], {"input": x})[0]


def test_images_are_served_as_raw_bytes(stripes, tmp_path):
    images, labels = stripes
    model = CNN(
        (8, 8, 1),
        [
            ("conv", {"filters": 4, "padding": "same", "activation": "relu"}),
            "batch_norm",
            "pool",
            "flatten",
            ("dropout", {"rate": 0.5}),
            ("dense", {"units": 2, "activation": "softmax"}),
        ],
        [MinMaxScaler(low=-1), Augmentation(rotate=5, crop=1, noise=0.01)],
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, labels, seed=0)
    model.export_onnx(tmp_path / "stripes.onnx")
    for batch in (1, 3, 64):
        raw = images[:batch, ..., np.newaxis]
        kind, found = run(tmp_path / "stripes.onnx", raw)
        assert kind == "tensor(uint8)"
        assert np.allclose(found, model.predict(raw), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["stripes.onnx"]


def test_texts_are_served_as_texts(tmp_path):
    texts = ["Win  £5000 NOW!!", "see you at home", "", "call 07712345678 or www.x.com now"] * 4
    model = RNN(
        (5,),
        [
            ("embedding", {"vocabulary_size": 30, "units": 4}),
            ("gru", {"units": 3, "bidirectional": True}),
            ("dense", {"units": 1, "activation": "sigmoid"}),
        ],
        [Tokenizer(vocabulary_size=30, steps=5)],
    )
    model.compile("adam", "binary_crossentropy")
    model.fit(texts, [1, 0, 0, 1] * 4, seed=0)
    model.export_onnx(tmp_path / "spam.onnx")
    unseen = [*texts, "ZYZZYVA\tzyzzyva\nÉ é", "?! 12 a1 £x $9", "   ", "now " * 40]
    kind, found = run(tmp_path / "spam.onnx", np.array(unseen, dtype=object))
    assert kind == "tensor(string)"
    assert np.allclose(found, model.predict(unseen), atol=1e-5)


def test_tables_are_served_unscaled(tmp_path):
    x = np.array([[1000.0, 2.0], [3000.0, 4.0], [2000.0, 9.0]])
    model = Sequential((2,), [("dense", {"units": 1})], [StandardScaler()])
    model.compile(loss="mse")
    model.fit(x, [1.0, 2.0, 3.0], seed=0)
    model.export_onnx(tmp_path / "prices.onnx")
    kind, found = run(tmp_path / "prices.onnx", x.astype(np.float32))
    assert kind == "tensor(float)"
    assert np.allclose(found, model.predict(x), atol=1e-5)


def test_torch_modules_export_too(tmp_path):
    model = from_torch(torch.nn.Linear(3, 2), (3,), activation="softmax")
    model.export_onnx(tmp_path / "linear.onnx")
    x = np.ones((2, 3), np.float32)
    assert np.allclose(run(tmp_path / "linear.onnx", x)[1], model.predict(x), atol=1e-6)


def test_an_exported_file_holds_no_paths_of_this_machine(tmp_path):
    model = from_torch(torch.nn.Linear(3, 2), (3,))
    model.export_onnx(tmp_path / "linear.onnx")
    assert b".py" not in (tmp_path / "linear.onnx").read_bytes()


def test_a_file_that_differs_from_torch_is_not_written(tmp_path, monkeypatch):
    translate = onnx_export._translate

    def wrong(network, example):
        model = translate(network, example)
        for weight in model.graph.initializer:
            values = onnx.numpy_helper.to_array(weight) + 1
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr(onnx_export, "_translate", wrong)
    with pytest.raises(InternalError, match="differs from torch at 1 samples"):
        from_torch(torch.nn.Linear(3, 2), (3,)).export_onnx(tmp_path / "linear.onnx")
    assert not list(tmp_path.iterdir())
