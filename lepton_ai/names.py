"""What users may call things: strict, because names become paths, subjects and keys."""

from __future__ import annotations

import re

from lepton_ai.errors import InvalidArgumentError

__all__ = ["check_name"]

_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")


def check_name(kind: str, name: str) -> str:
    """Return `name` when it is a valid name of a `kind` (such as ``"model"``).

    Raises:
        InvalidArgumentError: The name is outside the pattern; says what is allowed.

    Example:
        >>> check_name("model", "mnist-2")
        'mnist-2'
    """
    if _PATTERN.fullmatch(name):
        return name
    raise InvalidArgumentError(
        f"{name!r} is not a valid {kind} name",
        hint="use 1 to 63 lowercase letters, digits, '-' and '_', "
        "beginning and ending with a letter or digit",
    )
