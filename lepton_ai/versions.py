"""Which versions made a model: part of what is known of where it came from."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["library_versions"]

_LIBRARIES = ("lepton-ai", "torch", "numpy", "onnx", "onnxruntime")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a model, as they are installed here."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
