"""Models from declaration to prediction, on data that takes a moment."""

import json

import numpy as np
import pytest
import torch

from lepton_ai import (
    CNN,
    RNN,
    Callback,
    Checkpoint,
    EarlyStopping,
    Model,
    Sequential,
    from_torch,
    load,
)
from lepton_ai.errors import (
    ConflictError,
    DataCorruptError,
    DataError,
    InvalidArgumentError,
    NotFittedError,
    NotFoundError,
)
from lepton_ai.learn.network import build_module
from lepton_ai.preprocessing import MinMaxScaler, StandardScaler, Tokenizer

CORNERS = [
    ("dense", {"units": 8, "activation": "relu"}),
    ("dense", {"units": 4, "activation": "softmax"}),
]


def corners(**settings):
    model = Sequential((2,), CORNERS)
    model.compile(
        ("adam", {"learning_rate": 0.05}),
        "sparse_categorical_crossentropy",
        ["accuracy"],
        **settings,
    )
    return model


def weights(model):
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_fit_evaluate_predict(blobs):
    x, y = blobs
    model = corners()
    history = model.fit(x, y, epochs=8, validation_split=0.1, seed=0)
    loss, accuracy = model.evaluate(x, y)
    assert accuracy > 0.95
    assert loss < history["loss"][0]
    assert history.names == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert len(history) == 8
    probabilities = model.predict(x)
    assert probabilities.shape == (200, 4)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (probabilities.argmax(axis=1) == y).mean() == pytest.approx(accuracy)


def test_images_without_channel_and_float64_and_uint8_agree(stripes):
    images, labels = stripes
    layers = ["flatten", ("dense", {"units": 2, "activation": "softmax"})]
    model = CNN((8, 8, 1), layers, [MinMaxScaler()])
    model.compile(("adam", {"learning_rate": 0.1}), "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(images, labels, epochs=5, seed=0)
    assert model.evaluate(images, labels)[1] > 0.95
    expected = model.predict(images)
    for same_images in (images[..., np.newaxis], images.astype(float), torch.tensor(images)):
        assert np.allclose(model.predict(same_images), expected, atol=1e-6)


def test_a_seed_repeats_a_run(blobs):
    x, y = blobs
    first, second, other = corners(), corners(), corners()
    assert first.fit(x, y, epochs=2, seed=5) == second.fit(x, y, epochs=2, seed=5)
    assert same(weights(first), weights(second))
    other.fit(x, y, epochs=2, seed=6)
    assert not same(weights(first), weights(other))


def test_a_drawn_seed_is_kept_and_global_random_state_is_left_alone(blobs):
    x, y = blobs
    before = torch.random.get_rng_state()
    first, second = corners(), corners()
    seed = first.fit(x, y, seed=None).seed
    second.fit(x, y, seed=seed)
    assert same(weights(first), weights(second))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_resumed_run_equals_one_that_was_never_interrupted(blobs, tmp_path):
    x, y = blobs
    layers = [("dropout", {"rate": 0.2}), *CORNERS]

    class Interrupt(Callback):
        def on_epoch_end(self, run):
            if len(run.history) == 2:
                raise KeyboardInterrupt

    def fresh():
        model = Sequential((2,), layers, [StandardScaler()])
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
        return model

    whole, halves = fresh(), fresh()
    history = whole.fit(x, y, epochs=4, seed=1)
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        halves.fit(x, y, epochs=4, seed=1, callbacks=[Checkpoint(path), Interrupt()])
    resumed = fresh()
    assert resumed.fit(x, y, epochs=4, resume_from=path) == history
    assert same(weights(whole), weights(resumed))
    assert load(path).history is not None, "a checkpoint loads as a model"


def test_a_model_file_is_no_checkpoint(blobs, tmp_path):
    x, y = blobs
    model = corners()
    model.fit(x, y, seed=0)
    model.save(tmp_path / "model")
    with pytest.raises(InvalidArgumentError, match="no checkpoint"):
        model.fit(x, y, resume_from=tmp_path / "model")


def test_early_stopping_goes_back_to_the_best_weights(blobs):
    x, y = blobs
    best = {}

    class Spoil(Callback):
        """Makes every epoch after the third worse, and remembers the weights of the third."""

        def on_epoch_end(self, run):
            if len(run.history) == 3:
                best.update({k: v.clone() for k, v in run.trainer.module.state_dict().items()})
            if len(run.history) > 3:
                run.history.epochs[-1]["val_loss"] = 100.0

    model = corners()
    callbacks = [Spoil(), EarlyStopping("val_loss", patience=2)]
    history = model.fit(x, y, epochs=20, validation_data=(x, y), seed=0, callbacks=callbacks)
    assert len(history) == 5
    assert same(weights(model), best)


def test_early_stopping_names_the_nearest_metric(blobs):
    with pytest.raises(NotFoundError, match="did you mean 'loss'"):
        corners().fit(*blobs, callbacks=[EarlyStopping("los")])
    with pytest.raises(InvalidArgumentError, match="'min' or 'max'"):
        EarlyStopping(mode="least")


def test_save_and_load(blobs, tmp_path):
    x, y = blobs
    model = Sequential((2,), CORNERS, [StandardScaler()])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, y, seed=0)
    model.save(tmp_path / "corners")
    loaded = load(tmp_path / "corners")
    assert np.array_equal(loaded.predict(x), model.predict(x))
    assert loaded.evaluate(x, y) == model.evaluate(x, y)
    assert loaded.history == model.history
    assert [path.name for path in tmp_path.iterdir()] == ["corners"]
    assert np.array_equal(Model.from_bytes(model.to_bytes()).predict(x), model.predict(x))


def test_weights_alone(blobs, tmp_path):
    x, y = blobs
    model = corners()
    model.fit(x, y, seed=0)
    model.save_weights(tmp_path / "weights")
    assert np.array_equal(corners().load_weights(tmp_path / "weights").predict(x), model.predict(x))
    with pytest.raises(InvalidArgumentError, match="weights alone"):
        load(tmp_path / "weights")
    with pytest.raises(ConflictError, match="different model"):
        Sequential((2,), CORNERS[1:]).load_weights(tmp_path / "weights")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04pickle", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}"]
)
def test_files_that_are_not_models_are_refused(tmp_path, content):
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(DataCorruptError):
        load(tmp_path / "model")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(NotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")


def test_config_round_trip():
    model = corners(class_weight={0: 2.0})
    form = json.loads(json.dumps(model.to_config()))
    assert Model.from_config(form).config == model.config


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), "3 samples came with 2 labels"),
        (np.zeros((0, 2)), np.zeros(0, int), "there are no samples"),
        ("dataset-name", None, "needs cluster"),
        (np.zeros((3, 5)), np.zeros(3, int), r"data has shape \(3, 5\)"),
        (np.array([[0, 0], [np.nan, 0]]), np.zeros(2, int), "NaN or infinity in 1 of 2 samples"),
        (np.array([["a", "b"]]), np.zeros(1, int), "it must be numbers"),
        ([[0, 0], [1]], [0, 1], "not one array"),
        (np.zeros((2, 2)), np.array([0, 4]), r"labels must lie in \[0, 4\)"),
        (np.zeros((2, 2)), np.array([-1, 0]), r"labels must lie in \[0, 4\)"),
        (np.zeros((2, 2)), np.array([0.0, 1.0]), "one whole number a sample"),
        (np.zeros((2, 2)), np.zeros((2, 3), int), "one whole number a sample"),
    ],
)
def test_bad_data_is_refused_before_training(x, y, message):
    model = corners()
    with pytest.raises(DataError, match=message):
        model.fit(x, y)
    with pytest.raises(NotFittedError):
        model.predict(x)


def test_bad_labels_of_other_losses_are_refused():
    binary = Sequential((1,), [("dense", {"units": 1, "activation": "sigmoid"})])
    binary.compile(loss="binary_crossentropy")
    with pytest.raises(DataError, match="0 or 1"):
        binary.fit([[0.0], [1.0]], [0, 2])
    one_hot = Sequential((1,), [("dense", {"units": 2, "activation": "softmax"})])
    one_hot.compile(loss="categorical_crossentropy")
    with pytest.raises(DataError, match="one-hot"):
        one_hot.fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(DataError, match="sum to 1"):
        one_hot.fit([[0.0], [1.0]], [[1, 1], [0, 1]])
    line = Sequential((1,), [("dense", {"units": 1})])
    line.compile(loss="mse")
    with pytest.raises(DataError, match="labels have shape"):
        line.fit([[0.0], [1.0]], [[0.0, 1.0], [2.0, 3.0]])
    with pytest.raises(DataError, match="labels holds NaN"):
        line.fit([[0.0], [1.0]], [0.0, np.nan])


def test_order_of_calls_is_checked(blobs):
    x, y = blobs
    model = Sequential((2,), CORNERS)
    with pytest.raises(ConflictError, match="call compile first"):
        model.fit(x, y)
    for call in (model.predict, lambda x: model.export_onnx("x"), lambda x: model.save("x")):
        with pytest.raises(NotFittedError, match="call fit or load first"):
            call(x)
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(NotFittedError):
        model.evaluate(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"validation_split": 1.0}, "leaves a part empty"),
        ({"validation_split": 0.1, "validation_data": ([], [])}, "not both"),
        ({"workers": 2}, "workers, gpus and shards need cluster"),
        ({"shards": 2}, "workers, gpus and shards need cluster"),
    ],
)
def test_bad_options_are_refused(blobs, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        corners().fit(*blobs, **options)


class Unreached:
    """A cluster that nothing may be sent to."""

    def fit_model(self, request):
        raise AssertionError(request)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"callbacks": [EarlyStopping()]}, "callbacks .* EarlyStopping"),
        ({"resume_from": "run"}, "resume_from"),
        ({"validation_data": "test"}, "validation_data is 'test'"),
        ({"validation_split": 1.0}, "leaves a part empty"),
        ({"validation_data": ([[0, 0]], [0, 1])}, "1 samples came with 2 labels"),
        ({"y": [0]}, "200 samples came with 1 labels"),
        ({"y": None}, "labels are missing"),
        ({"y": np.full(200, 4)}, "labels must lie in"),
        ({"x": np.full((200, 2), np.nan)}, "NaN"),
        ({"x": np.zeros((200, 3))}, "shape"),
        ({"x": "points"}, "y came with a stored dataset"),
        ({"x": "points", "y": None, "validation_data": ([], [])}, "name a split"),
    ],
)
def test_what_a_cluster_could_not_train_is_never_sent(blobs, options, message):
    x, y = blobs
    with pytest.raises(InvalidArgumentError, match=message):
        corners().fit(**{"x": x, "y": y, "cluster": Unreached()} | options)


def test_a_stored_dataset_is_named_to_the_cluster():
    class Asked(Exception):
        pass

    class Asks:
        def fit_model(self, request):
            raise Asked(request)

    with pytest.raises(Asked) as asked:
        corners().fit("points:2", validation_data="test", shuffle=False, cluster=Asks())
    (request,) = asked.value.args
    assert request.training == ("points:2", None)
    assert request.validation == "test"
    assert not request.options.shuffle
    assert request.room.workers is None


def test_texts_are_expected_where_there_is_a_tokenizer():
    model = RNN(
        (4,),
        [("embedding", {"vocabulary_size": 20, "units": 2}), "flatten", ("dense", {"units": 1})],
        preprocessing=[Tokenizer(vocabulary_size=20, steps=4)],
    )
    model.compile(loss="mse")
    with pytest.raises(DataError, match="sample 1 is of type int"):
        model.fit(["one", 2], [0.0, 1.0])


def test_batches_too_small_for_batch_norm_are_refused():
    model = Sequential((2,), ["batch_norm", ("dense", {"units": 1})])
    model.compile(loss="mse")
    with pytest.raises(InvalidArgumentError, match="at least two samples"):
        model.fit(np.zeros((4, 2)), np.zeros(4), batch_size=1)
    model.fit(np.zeros((5, 2)), np.zeros(5), batch_size=2, seed=0)


def test_a_second_fit_goes_on_from_the_weights(blobs):
    x, y = blobs
    model = corners()
    first = model.fit(x, y, epochs=4, seed=0)["loss"][-1]
    assert model.fit(x, y, epochs=1, seed=1)["loss"][0] < 1.2 * first


def test_class_weights_shift_predictions():
    x = np.zeros((100, 1), np.float32)
    y = np.array([0] * 80 + [1] * 20)
    model = Sequential((1,), [("dense", {"units": 2, "activation": "softmax"})])
    model.compile(
        ("adam", {"learning_rate": 0.1}), "sparse_categorical_crossentropy", class_weight={1: 4}
    )
    model.fit(x, y, epochs=30, seed=0)
    assert model.predict(x[:1])[0, 1] == pytest.approx(0.5, abs=0.05)


def test_from_torch_trains_any_module(blobs, tmp_path):
    x, y = blobs
    module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    model = from_torch(module, (2,), activation="softmax")
    assert model.predict(x).shape == (200, 4)
    model.compile(
        ("adam", {"learning_rate": 0.05}), "sparse_categorical_crossentropy", ["accuracy"]
    )
    model.fit(x, y, epochs=8, seed=0)
    assert model.evaluate(x, y)[1] > 0.95
    with pytest.raises(InvalidArgumentError, match="save_weights"):
        model.save(tmp_path / "model")
    with pytest.raises(InvalidArgumentError, match="save_weights"):
        model.fit(x, y, callbacks=[Checkpoint(tmp_path / "run")])


def test_from_torch_refuses_what_does_not_fit():
    with pytest.raises(InvalidArgumentError, match=r"not a torch.nn.Module"):
        from_torch("module", (2,))
    with pytest.raises(InvalidArgumentError, match=r"fails on an input of shape \(2, 3\)"):
        from_torch(torch.nn.Linear(2, 1), (3,))
    with pytest.raises(InvalidArgumentError, match="did you mean 'softmax'"):
        from_torch(torch.nn.Linear(2, 1), (2,), activation="sofmax")


def test_pooling_before_the_activation_changes_no_result():
    layers = [
        ("conv", {"filters": 4, "activation": "relu"}),
        ("pool", {"pool_size": (2, 2)}),
        "flatten",
        ("dense", {"units": 2}),
    ]
    network = build_module(CNN((8, 8, 1), layers).config, seed=3)
    names = [name.split("_")[0] for name, _ in network.layers.named_children()]
    assert names == ["conv", "pool", "conv", "flatten", "dense"]
    x = torch.rand(5, 8, 8, 1)
    conv, dense = network.layers.conv_1, network.layers.dense_4
    images = torch.relu(conv(x.permute(0, 3, 1, 2)))
    pooled = torch.nn.functional.max_pool2d(images, 2).permute(0, 2, 3, 1)
    assert torch.equal(network(x), dense(pooled.flatten(1)))


def test_summary_counts_weights():
    table = CNN(
        (28, 28, 1), [("conv", {"filters": 2}), "flatten", ("dense", {"units": 3})]
    ).summary()
    assert "conv_1     (26, 26, 2)        20" in table
    assert table.endswith(str(20 + 26 * 26 * 2 * 3 + 3))


def test_history_plots(blobs):
    history = corners().fit(*blobs, epochs=2, validation_split=0.2, seed=0)
    figure = history.plot()
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]


def test_fit_on_a_cluster_gives_back_what_came_of_it(blobs):
    from lepton_ai.learn.remote import FitResult

    x, y = blobs
    requests = []

    class Twin:
        """A cluster that trains right here."""

        def fit_model(self, request):
            requests.append(request)
            model = Model.from_config(request.config)
            options = request.options.to_dict()
            history = model.fit(*request.training, **options)
            return FitResult(model.to_bytes(), history)

    here, there = corners(), corners()
    expected = here.fit(x, y, epochs=2, seed=3, validation_split=0.1)
    assert (
        there.fit(x, y, epochs=2, seed=3, validation_split=0.1, cluster=Twin(), workers=2)
        == expected
    )
    assert same(weights(here), weights(there))
    assert requests[0].room.workers == 2
