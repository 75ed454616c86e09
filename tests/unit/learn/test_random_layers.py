"""Random layer lists: build, train a step, save, load, export, and agree all the way."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_ai import Model, Sequential
from lepton_ai.errors import LayerError
from lepton_ai.learn.config import declare_model
from lepton_ai.learn.network import build_module

ACTIVATION = st.sampled_from(["linear", "relu", "tanh", "sigmoid", "gelu", "elu", "softplus"])
WINDOW = st.tuples(st.integers(1, 3), st.integers(1, 3))
CELLS = st.fixed_dictionaries(
    {
        "units": st.integers(1, 4),
        "bidirectional": st.booleans(),
        "output": st.sampled_from(["last", "sequence", "mean", "max"]),
    }
)
NORMS = [st.just("batch_norm"), st.just("layer_norm"), st.just(("dropout", {"rate": 0.2}))]
CONVS = st.tuples(
    st.just("conv"),
    st.fixed_dictionaries(
        {
            "filters": st.integers(1, 4),
            "kernel_size": WINDOW,
            "strides": WINDOW,
            "padding": st.sampled_from(["valid", "same"]),
            "activation": ACTIVATION,
        }
    ),
)
POOLS = st.tuples(
    st.just("pool"),
    st.fixed_dictionaries({"pool_size": WINDOW, "mode": st.sampled_from(["max", "average"])}),
)
GLOBAL = st.tuples(
    st.just("global_pool"), st.fixed_dictionaries({"mode": st.sampled_from(["max", "average"])})
)
RECURRENT = st.tuples(st.sampled_from(["rnn", "lstm", "gru"]), CELLS)
DENSE = st.tuples(
    st.just("dense"),
    st.fixed_dictionaries({"units": st.integers(1, 5), "activation": ACTIVATION}),
)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 8)),
    st.tuples(st.integers(1, 6), st.integers(1, 4)),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
)
LAYERS = st.lists(
    st.one_of(CONVS, POOLS, GLOBAL, RECURRENT, DENSE, st.just("flatten"), *NORMS), max_size=5
)


def next_layers(shape):
    """Layers that take `shape`."""
    by_rank = {1: [DENSE], 2: [RECURRENT, GLOBAL], 3: [CONVS, POOLS, GLOBAL]}
    return st.one_of(*by_rank[len(shape)], *NORMS)


@st.composite
def models(draw):
    """A compiled model of up to four random layers that meet, and a head."""
    shape = draw(SHAPES)
    layers = []
    for _ in range(draw(st.integers(0, 4))):
        candidate = [*layers, draw(next_layers(declared_shape(shape, layers)))]
        try:
            declare_model("Sequential", shape, candidate)
        except LayerError:  # a window larger than what is left of the image
            continue
        layers = candidate
    if len(declared_shape(shape, layers)) > 1:
        layers = [*layers, "flatten"]
    model = Sequential(shape, [*layers, ("dense", {"units": 3, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def declared_shape(shape, layers):
    return declare_model("Sequential", shape, layers).output_shape if layers else shape


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=models())
def test_random_models_train_save_load_and_export(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    random = np.random.default_rng(0)
    x = random.normal(size=(6, *model.config.input_shape))
    y = random.integers(0, 3, 6)
    history = model.fit(x, y, batch_size=6, seed=0)
    assert math.isfinite(history["loss"][0])
    model.save(folder / "model")
    loaded = Model.from_bytes((folder / "model").read_bytes())
    assert np.array_equal(loaded.predict(x), model.predict(x))
    loaded.export_onnx(folder / "model.onnx")  # raises unless ONNX Runtime agrees


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, layers=LAYERS.filter(len))
def test_a_layer_list_is_refused_or_turns_out_the_shape_it_said(shape, layers):
    torch = pytest.importorskip("torch")
    try:
        config = declare_model("Sequential", shape, layers)
    except LayerError:
        return
    network = build_module(config, seed=0).eval()
    found = tuple(network(torch.zeros(2, *shape)).shape[1:])
    channels_last = (*found[1:], found[0]) if len(found) == 3 else found
    assert channels_last == config.output_shape
