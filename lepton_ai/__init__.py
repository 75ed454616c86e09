"""Lepton: train a torch model across nodes, keep it on replicated storage, serve it as ONNX.

Example:
    >>> from lepton_ai import CNN
    >>> model = CNN((28, 28, 1), [("flatten"), ("dense", {"units": 10, "activation": "softmax"})])
    >>> model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lepton_ai.cluster.client import AsyncCluster
    from lepton_ai.cluster.sync import Cluster
    from lepton_ai.learn.callbacks import Callback, Checkpoint, EarlyStopping
    from lepton_ai.learn.history import History
    from lepton_ai.learn.kinds import CNN, RNN, Sequential, from_torch, load
    from lepton_ai.learn.model import Model

__all__ = [
    "CNN",
    "RNN",
    "AsyncCluster",
    "Callback",
    "Checkpoint",
    "Cluster",
    "EarlyStopping",
    "History",
    "Model",
    "Sequential",
    "from_torch",
    "load",
]

# Where each public name lives; it is imported when first used, because start-up counts.
_HOMES = {
    "CNN": "lepton_ai.learn.kinds",
    "RNN": "lepton_ai.learn.kinds",
    "AsyncCluster": "lepton_ai.cluster.client",
    "Callback": "lepton_ai.learn.callbacks",
    "Checkpoint": "lepton_ai.learn.callbacks",
    "Cluster": "lepton_ai.cluster.sync",
    "EarlyStopping": "lepton_ai.learn.callbacks",
    "History": "lepton_ai.learn.history",
    "Model": "lepton_ai.learn.model",
    "Sequential": "lepton_ai.learn.kinds",
    "from_torch": "lepton_ai.learn.kinds",
    "load": "lepton_ai.learn.kinds",
}


_MODULES = ("datasets", "metrics", "preprocessing")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"lepton_ai.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'lepton_ai' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
