"""Models as files: a list of layers in JSON or TOML, or a Python file that makes one."""

from __future__ import annotations

import json
import runpy
import tomllib
from pathlib import Path
from typing import Any

from lepton_ai.errors import InvalidArgumentError, NotFoundError
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.kinds import CNN, RNN, Sequential
from lepton_ai.learn.model import Model

__all__ = ["model_of", "read_model_file"]

_KINDS = {"CNN": CNN, "RNN": RNN, "Sequential": Sequential}
_COMPILED = ("optimizer", "loss", "metrics", "schedule", "class_weight")


def read_model_file(path: Path) -> Model:
    """The compiled model that a ``.json``, ``.toml`` or ``.py`` file declares.

    A Python file is run, and its variable ``model`` is taken.

    Raises:
        NotFoundError: There is no such file.
        InvalidArgumentError: It declares no model.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    if path.suffix == ".py":
        model = runpy.run_path(str(path)).get("model")
        if not isinstance(model, Model):
            raise InvalidArgumentError(f"{path} has no model", hint="name it 'model'")
        return model
    try:
        text = path.read_text()
        return model_of(tomllib.loads(text) if path.suffix == ".toml" else json.loads(text))
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path} cannot be read: {error}") from None


def model_of(form: Any) -> Model:
    """The model of a declaration, or of what `Model.to_config` wrote.

    Example:
        >>> model_of({"kind": "Sequential", "input_shape": [4], "loss": "mse",
        ...           "layers": [["dense", {"units": 1}]]}).config.output_shape
        (1,)

    Raises:
        InvalidArgumentError: It is neither; says what is missing.
    """
    if not isinstance(form, dict) or not {"input_shape", "layers"} <= set(form):
        raise InvalidArgumentError(
            "this declares no model", hint="give kind, input_shape, layers, optimizer, loss"
        )
    if "objective" in form:
        return Model(ModelConfig.from_dict(form))
    kind = form.get("kind", "Sequential")
    if kind not in _KINDS:
        raise InvalidArgumentError(f"{kind!r} is no kind of model", hint=", ".join(_KINDS))
    layers = [tuple(entry) if isinstance(entry, list) else entry for entry in form["layers"]]
    model = _KINDS[kind](form["input_shape"], layers)
    model.compile(**{key: form[key] for key in _COMPILED if key in form})
    return model
