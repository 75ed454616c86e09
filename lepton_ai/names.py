"""Names that people choose, checked before they reach a path, a subject or a key."""

from __future__ import annotations

import re

from lepton_ai.errors import InvalidArgumentError

__all__ = ["check_name"]

_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_RULE = "1 to 63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or a digit"
# How much of a refused name an error repeats.
_SHOWN = 80


def check_name(kind: str, name: str) -> str:
    """Return `name` when it is allowed.

    Args:
        kind: What is named, for the error: ``"model"``, ``"dataset"``.
        name: The name to check.

    Raises:
        InvalidArgumentError: It is not; says what is.

    Example:
        >>> check_name("model", "mnist-cnn")
        'mnist-cnn'
    """
    if not _PATTERN.fullmatch(name):
        raise InvalidArgumentError(f"{name[:_SHOWN]!r} is no {kind} name", hint=_RULE)
    return name
