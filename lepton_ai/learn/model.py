"""What every model can do: be compiled, fitted, evaluated, saved and exported."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

from lepton_ai.errors import ConflictError, InvalidArgumentError, NotFittedError
from lepton_ai.learn import data
from lepton_ai.learn.config import ModelConfig, Objective, declare_objective
from lepton_ai.learn.files import ModelFile, from_bytes, read_model, to_bytes, write_model
from lepton_ai.learn.history import History
from lepton_ai.learn.remote import FitOptions, FitRequest, Room, TrainingCluster

if TYPE_CHECKING:
    from lepton_ai.learn.callbacks import Callback
    from lepton_ai.learn.fitting import Samples
    from lepton_ai.learn.network import Network

__all__ = ["Model", "restore"]

Array = NDArray[Any]

_EVALUATION_BATCH = 256


class Model:
    """A declared model and, once fitted or loaded, its weights.

    Made by `CNN`, `RNN`, `Sequential`, `from_torch` or `load`, not directly.

    Attributes:
        config: The declaration: layers, preprocessing and what `compile` settled.
        history: Loss and metrics of all epochs of the last `fit`, or None.

    Example:
        >>> from lepton_ai import Sequential
        >>> model = Sequential((1,), [("dense", {"units": 1})])
        >>> model.compile(loss="mse", metrics=["mae"])
        >>> model.config.output_shape
        (1,)
    """

    def __init__(self, config: ModelConfig, network: Network | None = None) -> None:
        self.config = config
        self.history: History | None = None
        self._network = network

    @property
    def module(self) -> Network:
        """The plain `torch.nn.Module` underneath, from raw input to outputs.

        Raises:
            NotFittedError: The model has no weights yet.
        """
        if self._network is None:
            raise NotFittedError("the model has no weights yet", hint="call fit or load first")
        return self._network

    def compile(
        self,
        optimizer: object = "adam",
        loss: object = "mse",
        metrics: Sequence[object] = (),
        *,
        schedule: object = "cosine",
        class_weight: Mapping[int, float] | Sequence[float] | None = None,
    ) -> None:
        """Settle how the model is trained and measured. Weights stay as they are.

        Each of the first four is a name or a tuple of a name and parameters, such as
        ``('adam', {'learning_rate': 0.01})``.

        Args:
            optimizer: ``'adam'``, ``'adamw'``, ``'sgd'`` (with momentum), ``'gradient_descent'`` or
                ``'rmsprop'``.
            loss: ``'mse'``, ``'mae'``, ``'huber'``, ``'binary_crossentropy'`` (after a sigmoid),
                ``'categorical_crossentropy'`` or ``'sparse_categorical_crossentropy'`` (after a
                softmax).
            metrics: ``'accuracy'``, ``'top_k'``, ``'precision'``, ``'recall'``, ``'f1'``,
                ``'roc_auc'``, ``'mse'``, ``'mae'``, ``'r2'``.
            schedule: How the learning rate moves over the steps of a `fit`: ``'cosine'`` (down to
                zero, which ends steadier than a constant rate), ``'constant'``, ``'linear'``,
                ``'exponential'`` or ``'step'``.
            class_weight: Weight of each class in the loss, by class; 1 where none is given.

        Raises:
            InvalidArgumentError: A name or parameter does not exist; names the nearest.
            LayerError: The last layer does not fit the loss.

        Example:
            >>> from lepton_ai import Sequential
            >>> model = Sequential((2,), [("dense", {"units": 1})])
            >>> model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
        """
        objective = declare_objective(
            self.config,
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            schedule=schedule,
            class_weight=class_weight,
        )
        self.config = replace(self.config, objective=objective)

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_split: float = 0.0,
        validation_data: tuple[Any, Any] | str | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        callbacks: Sequence[Callback] = (),
        resume_from: str | Path | None = None,
        cluster: TrainingCluster | None = None,
        workers: int | None = None,
        gpus: int = 0,
        shards: int = 1,
    ) -> History:
        """Train the model, here or on a cluster. A second call goes on from the weights it has.

        Trains on CUDA in bfloat16 where there is one, else on all cores torch was given.

        Args:
            x: ``(samples, *input_shape)`` numbers (an image's single channel may be left out), or
                texts for a model with a tokenizer. On a cluster also a stored dataset, ``"name"``
                or ``"name:version"``, whose split "train" is used.
            y: One label a sample, as the loss takes them; a stored dataset has its own.
            epochs: Passes over the data.
            batch_size: Samples in a step.
            validation_split: Share at the end of the data that is held out and measured.
            validation_data: ``(x, y)`` to measure on instead; the name of a split where `x` is a
                stored dataset.
            shuffle: Whether each epoch has an order of its own.
            seed: Makes the run repeatable; drawn and kept in the history when not given.
            callbacks: Such as `EarlyStopping` and `Checkpoint`; not on a cluster.
            resume_from: A `Checkpoint` file of the same run, to continue to `epochs`; not on a
                cluster, which goes on by itself when workers are lost.
            cluster: Where to train; here when not given.
            workers: The most workers to train on; all that the cluster has when not given.
            gpus: Accelerators for each of them; here one is used where there is one.
            shards: Processes of each worker that the model is split over (FSDP), for one that does
                not fit an accelerator: ask for as many `gpus`.

        Returns:
            Loss and metrics by epoch.

        Raises:
            ConflictError: The model is not compiled.
            InvalidArgumentError: An option has a wrong value, or does not go with another.
            DataError: Data or labels do not fit; raised before training starts.

        Example:
            >>> from lepton_ai import Sequential
            >>> model = Sequential((1,), [("dense", {"units": 1})])
            >>> model.compile(optimizer=("sgd", {"learning_rate": 0.1}), loss="mse")
            >>> import numpy as np
            >>> x = np.linspace(-1, 1, 64)
            >>> history = model.fit(x, 3 * x + 1, epochs=100, seed=0)
            >>> model.predict([0.5]).round(2)
            array([[2.5]], dtype=float32)
        """
        options = FitOptions(
            _positive("epochs", epochs),
            _positive("batch_size", batch_size),
            validation_split,
            shuffle,
            secrets.randbits(31) if seed is None else seed,
        )
        self._objective()
        if validation_split and validation_data is not None:
            raise InvalidArgumentError("give validation_split or validation_data, not both")
        if cluster is not None:
            _refuse_local_options(callbacks, resume_from)
            most = None if workers is None else _positive("workers", workers)
            room = Room(most, gpus, _positive("shards", shards))
            return self._fit_on(cluster, (x, y), validation_data, options, room)
        if (workers, gpus, shards) != (None, 0, 1):
            raise InvalidArgumentError("workers, gpus and shards need cluster=...")
        data.check_lengths(x, y)
        if isinstance(validation_data, str):
            raise InvalidArgumentError(
                f"validation_data is {validation_data!r}", hint="give (x, y) when training here"
            )
        training = (x, y)
        if validation_split:
            training, validation_data = data.split_validation(x, y, validation_split)
        return self._fit_here(training, validation_data, options, callbacks, resume_from)

    def evaluate(self, x: Any, y: Any, *, batch_size: int = _EVALUATION_BATCH) -> tuple[float, ...]:
        """The loss and then the metrics, in the order `compile` was given them.

        Args:
            x: Data as for `fit`.
            y: Labels as for `fit`.
            batch_size: Samples computed at once.

        Raises:
            NotFittedError: The model has no weights yet.
            DataError: Data or labels do not fit.

        Example:
            >>> import torch
            >>> from lepton_ai import from_torch
            >>> model = from_torch(torch.nn.Linear(2, 1), (2,))
            >>> model.compile(loss="mse", metrics=["mae"])
            >>> loss, mae = model.evaluate([[0.0, 0.0]], [model.predict([[0.0, 0.0]])[0, 0]])
            >>> loss, mae
            (0.0, 0.0)
        """
        from lepton_ai.learn import fitting

        module = self.module
        data.check_lengths(x, y)
        samples = self._samples(x, y)
        return tuple(fitting.evaluate(self.config, module, samples, batch_size).values())

    def predict(self, x: Any, *, batch_size: int = _EVALUATION_BATCH) -> Array:
        """The outputs, such as probabilities: ``(samples, *output_shape)`` float32.

        Args:
            x: Data as for `fit`.
            batch_size: Samples computed at once.

        Raises:
            NotFittedError: The model has no weights yet.
            DataError: The data does not fit.

        Example:
            >>> import torch
            >>> from lepton_ai import from_torch
            >>> model = from_torch(torch.nn.Linear(2, 1), (2,))
            >>> model.predict([[0.0, 0.0], [1.0, 1.0]]).shape
            (2, 1)
        """
        from lepton_ai.learn import fitting

        module = self.module
        inputs = data.as_inputs(self.config, x)
        device = next(module.parameters()).device
        return fitting.predict(module, inputs, device, batch_size)

    def summary(self) -> str:
        """A table of layers, output shapes and weights.

        Example:
            >>> from lepton_ai import Sequential
            >>> print(Sequential((2,), [("dense", {"units": 3})]).summary())
            layer    output shape  weights
            dense_1  (3,)                9
            total                        9
        """
        from lepton_ai.learn.summary import summarize

        return summarize(self.config)

    def save(self, path: str | Path) -> None:
        """Write layers, preprocessing, weights and history to one safetensors file.

        Raises:
            NotFittedError: The model has no weights yet.
            InvalidArgumentError: The model came from `from_torch` and cannot be declared again.

        Example:
            >>> import tempfile
            >>> from lepton_ai import Sequential, load
            >>> model = Sequential((1,), [("dense", {"units": 1})])
            >>> model.compile(loss="mse", metrics=["mae"])
            >>> _ = model.fit([0.0, 1.0], [0.0, 1.0])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save(f"{folder}/line.safetensors")
            ...     loaded = load(f"{folder}/line.safetensors")
            >>> bool(loaded.predict([2.0]) == model.predict([2.0]))
            True
        """
        write_model(path, self._file())

    def to_bytes(self) -> bytes:
        """What `save` writes.

        Example:
            >>> from lepton_ai import Sequential
            >>> model = Sequential((1,), [("dense", {"units": 1})])
            >>> model.compile(loss="mse", metrics=["mae"])
            >>> _ = model.fit([0.0, 1.0], [0.0, 1.0])
            >>> Model.from_bytes(model.to_bytes()).history == model.history
            True
        """
        return to_bytes(self._file())

    @classmethod
    def from_bytes(cls, content: bytes) -> Model:
        """The model that `to_bytes` gave.

        Raises:
            DataCorruptError: The bytes are not a model.

        Example:
            >>> Model.from_bytes(b"not a model")
            Traceback (most recent call last):
                ...
            lepton_ai.errors.DataCorruptError: this is not a model that Lepton saved
        """
        return restore(from_bytes(content))

    def save_weights(self, path: str | Path) -> None:
        """Write the weights alone to a safetensors file; works for `from_torch` models too.

        Raises:
            NotFittedError: The model has no weights yet.

        Example:
            >>> import tempfile
            >>> import torch
            >>> from lepton_ai import from_torch
            >>> model = from_torch(torch.nn.Linear(2, 1), (2,))
            >>> other = from_torch(torch.nn.Linear(2, 1), (2,))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save_weights(f"{folder}/weights")
            ...     other = other.load_weights(f"{folder}/weights")
            >>> bool(other.predict([[1.0, 2.0]]) == model.predict([[1.0, 2.0]]))
            True
        """
        write_model(path, ModelFile({}, self.module.state_dict()))

    def load_weights(self, path: str | Path) -> Self:
        """Read weights that `save_weights` or `save` wrote for the same layers.

        Raises:
            NotFoundError: There is no such file.
            ConflictError: The weights belong to a different model.

        Example:
            >>> import tempfile
            >>> import torch
            >>> from lepton_ai import from_torch
            >>> model = from_torch(torch.nn.Linear(2, 1), (2,))
            >>> other = from_torch(torch.nn.Linear(2, 1), (2,))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save_weights(f"{folder}/weights")
            ...     other = other.load_weights(f"{folder}/weights")
            >>> bool(other.predict([[1.0, 2.0]]) == model.predict([[1.0, 2.0]]))
            True
        """
        from lepton_ai.learn.trainer import load_weights

        load_weights(self._built(seed=0), read_model(path).tensors)
        return self

    def export_onnx(self, path: str | Path) -> None:
        """Write the model as ONNX, preprocessing and last activation included.

        Input ``input`` takes raw data with any number of samples: float32, uint8 where the scaler
        was fitted on uint8, int64 tokens, or texts of shape ``(samples,)`` with a tokenizer. Output
        ``output`` is what `predict` returns. The file is checked against `predict` at 1, 2 and 64
        samples before it appears at `path`.

        Raises:
            NotFittedError: The model has no weights yet.
            InternalError: ONNX Runtime and torch do not agree.

        Example:
            >>> import tempfile
            >>> import torch
            >>> from lepton_ai import from_torch
            >>> model = from_torch(torch.nn.Linear(2, 1), (2,))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.export_onnx(f"{folder}/linear.onnx")
            ...     size_bytes = Path(f"{folder}/linear.onnx").stat().st_size
            >>> size_bytes > 0
            True
        """
        from lepton_ai.learn.onnx_export import export

        export(self.config, self.module, Path(path))

    def to_config(self) -> dict[str, Any]:
        """The model without weights, fit for JSON.

        Raises:
            InvalidArgumentError: The model came from `from_torch`.

        Example:
            >>> from lepton_ai import Sequential
            >>> model = Sequential((1,), [("dense", {"units": 1})])
            >>> model.compile(loss="mse", metrics=["mae"])
            >>> model.to_config()["layers"]
            [['dense', {'units': 1}]]
        """
        return self.config.to_dict()

    @staticmethod
    def from_config(form: Mapping[str, Any]) -> Model:
        """The model, without weights, that `to_config` described; checked again.

        Raises:
            InvalidArgumentError: The form is not one of ours.
            LayerError: The layers cannot become a model.

        Example:
            >>> from lepton_ai import Sequential
            >>> form = Sequential((2,), [("dense", {"units": 3})]).to_config()
            >>> Model.from_config(form).config.output_shape
            (3,)
        """
        return Model(ModelConfig.from_dict(form))

    def _objective(self) -> Objective:
        if self.config.objective is None:
            raise ConflictError("the model is not compiled", hint="call compile first")
        return self.config.objective

    def _fit_here(
        self,
        training: tuple[Any, Any],
        validation: tuple[Any, Any] | None,
        options: FitOptions,
        callbacks: Sequence[Callback],
        resume_from: str | Path | None,
    ) -> History:
        from lepton_ai.learn import fitting
        from lepton_ai.learn.batches import BatchPlan

        checkpoint = None if resume_from is None else fitting.read_checkpoint(resume_from)
        if checkpoint is not None:
            options = replace(options, seed=checkpoint.header["history"]["seed"])
            self.config = ModelConfig.from_dict(checkpoint.header["model"])
        self.config = data.fit_preprocessing(self.config, training[0])
        samples = self._samples(*training)
        held_out = None if validation is None else self._samples(*validation)
        plan = BatchPlan(len(samples), options.batch_size, options.seed, options.shuffle)
        data.check_batch_norm(self.config, min(options.batch_size, len(samples)))
        run = fitting.begin(self.config, self._built(options.seed), plan, options.epochs)
        if checkpoint is not None:
            fitting.resume(run, checkpoint)
        self.history = run.history
        fitting.fit(run, plan, samples, held_out, callbacks)
        return self.history

    def _fit_on(
        self,
        cluster: TrainingCluster,
        training: tuple[Any, Any],
        validation: tuple[Any, Any] | str | None,
        options: FitOptions,
        room: Room,
    ) -> History:
        if isinstance(training[0], str):
            _check_stored(training[1], validation)
        else:
            self._check_arrays(training, validation, options)
        weights = None if self._network is None else self.to_bytes()
        request = FitRequest(
            config=self.to_config(),
            training=training,
            validation=validation,
            weights=weights,
            options=options,
            room=room,
        )
        result = cluster.fit_model(request)
        trained = self.from_bytes(result.model)
        self.config, self._network = trained.config, trained.module
        self.history = result.history
        return self.history

    def _check_arrays(
        self, training: tuple[Any, Any], validation: Any, options: FitOptions
    ) -> None:
        """Refuse here, before anything is sent, what could not be trained on there."""
        loss = self._objective().loss
        data.check_samples(self.config, loss, *training)
        if isinstance(validation, str):
            raise InvalidArgumentError(
                f"validation_data is {validation!r}", hint="give (x, y) where x is not a name"
            )
        if validation is not None:
            data.check_samples(self.config, loss, *validation)
        if options.validation_split:
            training, _ = data.split_validation(*training, options.validation_split)
        data.check_batch_norm(self.config, min(options.batch_size, len(training[0])))

    def _samples(self, x: Any, y: Any) -> Samples:
        from lepton_ai.learn.fitting import Samples
        from lepton_ai.learn.trainer import training_device

        inputs = data.as_inputs(self.config, x)
        targets = data.as_targets(self._objective().loss, y, self.config.output_shape)
        return Samples.of(inputs, targets, training_device())

    def _built(self, seed: int) -> Network:
        if self._network is None:
            self._network = _network(self.config, seed)
        return self._network

    def _file(self) -> ModelFile:
        header = {
            "model": self.to_config(),
            "history": None if self.history is None else self.history.to_dict(),
        }
        return ModelFile(header, self.module.state_dict())


def restore(file: ModelFile) -> Model:
    """The model in a file.

    Raises:
        InvalidArgumentError: The file holds weights alone.
    """
    from lepton_ai.learn.trainer import load_weights

    if "model" not in file.header:
        raise InvalidArgumentError(
            "this file holds weights alone", hint="build the model, then call load_weights"
        )
    config = ModelConfig.from_dict(file.header["model"])
    network = _network(config, seed=0)
    load_weights(network, file.tensors)
    model = Model(config, network)
    if file.header["history"] is not None:
        model.history = History.from_dict(file.header["history"])
    return model


def _network(config: ModelConfig, seed: int) -> Network:
    from lepton_ai.learn.network import build_module
    from lepton_ai.learn.trainer import training_device

    return build_module(config, seed).to(training_device())


def _refuse_local_options(callbacks: Sequence[Callback], resume_from: str | Path | None) -> None:
    if callbacks:
        names = ", ".join(type(callback).__name__ for callback in callbacks)
        raise InvalidArgumentError(
            f"callbacks are for training here, not on a cluster: {names}",
            hint="leave out callbacks or cluster",
        )
    if resume_from is not None:
        raise InvalidArgumentError(
            "resume_from is for training here, not on a cluster",
            hint="load() the checkpoint and fit() on from its weights",
        )


def _check_stored(y: Any, validation: Any) -> None:
    if y is not None:
        raise InvalidArgumentError("y came with a stored dataset", hint="which has its own labels")
    if not isinstance(validation, str | None):
        raise InvalidArgumentError(
            "validation_data is arrays and the training data a stored dataset",
            hint="use validation_split, or name a split of the dataset",
        )


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise InvalidArgumentError(f"{name} is {value}", hint="it must be at least 1")
    return value
