"""Layer lists are checked as data, without torch."""

import json
import subprocess
import sys

import pytest

from lepton_ai.errors import InvalidArgumentError, LayerError
from lepton_ai.learn.config import ModelConfig, declare_model, declare_objective

TUTORIAL = [
    ("conv", {"filters": 32, "kernel_size": (3, 3), "activation": "relu"}),
    ("pool", {"pool_size": (2, 2)}),
    ("conv", {"filters": 64, "kernel_size": (3, 3), "activation": "relu"}),
    ("pool", {"pool_size": (2, 2)}),
    ("flatten"),
    ("dense", {"units": 128, "activation": "relu"}),
    ("dense", {"units": 10, "activation": "softmax"}),
]


def test_shapes_of_the_tutorial():
    config = declare_model("CNN", (28, 28, 1), TUTORIAL)
    assert config.shapes == [
        (28, 28, 1),
        (26, 26, 32),
        (13, 13, 32),
        (11, 11, 64),
        (5, 5, 64),
        (1600,),
        (128,),
        (10,),
    ]
    assert config.output_activation == "softmax"


def test_config_survives_json():
    config = declare_model(
        "RNN",
        (12,),
        [
            ("embedding", {"vocabulary_size": 50, "units": 8}),
            ("lstm", {"units": 4, "bidirectional": True, "initializer": ("normal", {"stddev": 1})}),
            ("dense", {"units": 3, "activation": "softmax"}),
        ],
        [("tokenizer", {"steps": 12, "vocabulary": ["a", "b"]})],
    )
    config = config.with_objective(
        declare_objective(
            config,
            optimizer=("sgd", {"momentum": 0.5}),
            loss="sparse_categorical_crossentropy",
            metrics=["f1", ("top_k", {"k": 2})],
            schedule=("step", {"rate": 0.5}),
            class_weight={1: 2.0},
        )
    )
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([("cnv", {"filters": 3})], "layer 1 'cnv' does not exist: did you mean 'conv'?"),
        ([("conv", {})], r"layer 1 \('conv'\) needs the parameter 'filters'"),
        ([("conv", {"filter": 3})], "has no parameter 'filter': did you mean 'filters'?"),
        ([("conv", {"filters": -3})], "filters is -3: it must be a whole number of at least 1"),
        ([("conv", {"filters": True})], "filters is True"),
        ([("conv", {"filters": 3, "activation": "rleu"})], "did you mean 'relu'"),
        ([("conv", {"filters": 3, "initializer": "he"})], "initializer 'he' does not exist"),
        (
            ["pool", ("dense", {"units": 3})],
            r"layer 2 \('dense'\) got an input of shape \(14, 14, 1",
        ),
        ([("pool", {"pool_size": 40})], "it needs an image of at least 40 x 40 pixels"),
        (["flatten", ("pool", {})], r"layer 2 \('pool'\) got an input of shape \(784,\)"),
        ([("gru", {"units": 3})], r"it needs a sequence of shape \(steps, features\)"),
        (["flatten", ("embedding", {"vocabulary_size": 9, "units": 2})], "not the first layer"),
        ("flatten", "give a list of at least one layer"),
        ([], "give a list of at least one layer"),
        ([7], "layer 1 is 7: write a name"),
        ([("flatten", {}, {})], "write a name, or a tuple"),
        ([("dropout", {"rate": 1.0})], "it must be a number of at least 0 and below 1"),
        ([("dropout", {"rate": float("nan")})], "it must be a number"),
    ],
)
def test_bad_layers_are_refused_by_name_and_need(layers, message):
    with pytest.raises(LayerError, match=message):
        declare_model("CNN", (28, 28), layers)


@pytest.mark.parametrize("shape", [(28,), (0, 28, 1), "28", (28.0, 28, 1), None])
def test_bad_input_shapes_are_refused(shape):
    with pytest.raises(LayerError):
        declare_model("CNN", shape, TUTORIAL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adma"}, "optimizer 'adma' does not exist: did you mean 'adam'?"),
        ({"loss": "mes"}, "did you mean 'mse'"),
        ({"metrics": ["acuracy"]}, "did you mean 'accuracy'"),
        ({"metrics": "accuracy"}, r"give a list: \['accuracy'\]"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"optimizer": ("adam", {"learning_rate": 0})}, "must be a number greater than 0"),
        ({"loss": "binary_crossentropy"}, "needs 'sigmoid' there"),
        ({"loss": "mse", "metrics": ["f1"]}, "metric 'f1' needs a classification loss"),
        ({"loss": "mse", "class_weight": {0: 2.0}}, "needs a classification loss"),
        (
            {"loss": "sparse_categorical_crossentropy", "class_weight": {10: 1.0}},
            "classes 0 to 9",
        ),
        ({"loss": "sparse_categorical_crossentropy", "metrics": ["mse"]}, "a regression loss"),
    ],
)
def test_bad_objectives_are_refused(settings, message):
    config = declare_model("CNN", (28, 28, 1), TUTORIAL)
    with pytest.raises(InvalidArgumentError, match=message):
        declare_objective(config, **settings)


def test_a_tokenizer_needs_an_embedding_of_its_steps():
    with pytest.raises(LayerError, match="needs input_shape"):
        declare_model("RNN", (5, 1), [("gru", {"units": 2})], [("tokenizer", {"steps": 5})])


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"format": 99, "kind": "CNN", "input_shape": [8, 8, 1], "layers": ["flatten"]},
        {"format": 1, "kind": "GAN", "input_shape": [8, 8, 1], "layers": ["flatten"]},
    ],
)
def test_foreign_forms_are_refused(form):
    with pytest.raises(InvalidArgumentError):
        ModelConfig.from_dict(form)


def test_checking_a_layer_list_needs_no_torch():
    program = (
        "import sys; from lepton_ai import CNN;"
        "m = CNN((8, 8, 1), ['flatten', ('dense', {'units': 2, 'activation': 'softmax'})]);"
        "m.compile('adam', 'sparse_categorical_crossentropy', ['accuracy']);"
        "heavy = {'torch', 'sklearn', 'pandas', 'grpc', 'onnxruntime', 'lepton_runtime'};"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
