"""Declarations: a name, or a name with parameters, checked against what that name takes.

Layers, optimizers, losses, schedules, metrics and initialisers are all written the same way:
``'relu'``, ``('flatten')``, ``('conv', {'filters': 32})`` or, once through JSON,
``['conv', {'filters': 32}]``. Each becomes a frozen dataclass whose fields carry their own check.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from numbers import Integral, Real
from typing import Any, TypeVar, cast

from lepton_ai.errors import InvalidArgumentError

__all__ = [
    "Check",
    "boolean",
    "checked",
    "declare",
    "declared",
    "fraction",
    "nearest",
    "number",
    "numbers",
    "one_of",
    "pair",
    "texts",
    "undeclare",
    "whole",
]

Check = Callable[[object], object]
Declared = TypeVar("Declared")

_CHECK = "check"
_TABLE = "table"


def checked(check: Check) -> dict[str, Check]:
    """Field metadata: `check` returns the value to keep, or raises `ValueError` saying its need.

    A field whose default is None takes None without a check.
    """
    return {_CHECK: check}


def declared(table: Mapping[str, type[Any]]) -> dict[str, Mapping[str, type[Any]]]:
    """Field metadata: the value is itself a declaration of a class in `table`."""
    return {_TABLE: table}


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint that names the closest allowed name, or all of them when none is close.

    Example:
        >>> nearest("adma", ["sgd", "adam"])
        "did you mean 'adam'?"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"allowed are {', '.join(names)}"


def declare(
    value: object, table: Mapping[str, type[Declared]], what: str, error: type[InvalidArgumentError]
) -> Declared:
    """The dataclass that `value` declares.

    Args:
        value: A name, ``(name,)``, ``(name, parameters)``, or an instance of a class in `table`.
        table: The classes by name.
        what: What is being declared, for messages: ``"layer 2"``, ``"optimizer"``.
        error: The error to raise.
    """
    if isinstance(value, tuple(table.values())):
        return value
    name, parameters = _name_and_parameters(value, what, error)
    if name not in table:
        raise error(f"{what} {name!r} does not exist", hint=nearest(name, table))
    kind = table[name]
    return kind(**_checked_parameters(kind, parameters, f"{what} ({name!r})", error))


def undeclare(value: object, table: Mapping[str, type[Any]]) -> list[Any]:
    """The inverse of `declare`, fit for JSON: ``[name, parameters that differ from defaults]``."""
    name = next(name for name, kind in table.items() if type(value) is kind)
    parameters = {
        field.name: _plain(getattr(value, field.name), field)
        for field in fields(cast("Any", value))
        if getattr(value, field.name) != field.default
    }
    return [name, parameters]


def _name_and_parameters(
    value: object, what: str, error: type[InvalidArgumentError]
) -> tuple[str, dict[str, object]]:
    parts: Sequence[object] = [value] if isinstance(value, str) else cast("Sequence[object]", value)
    well_formed = (
        isinstance(parts, list | tuple)
        and 1 <= len(parts) <= 2
        and isinstance(parts[0], str)
        and all(isinstance(part, Mapping) for part in parts[1:])
    )
    if not well_formed:
        raise error(
            f"{what} is {value!r}",
            hint="write a name, or a tuple of a name and a dict of parameters",
        )
    parameters = cast("Mapping[str, object]", parts[1]) if len(parts) == 2 else {}
    return cast("str", parts[0]), dict(parameters)


def _checked_parameters(
    kind: type[Any], given: dict[str, object], what: str, error: type[InvalidArgumentError]
) -> dict[str, object]:
    known = {field.name: field for field in fields(kind)}
    for name in given:
        if name not in known:
            hint = nearest(name, known) if known else "it takes no parameters"
            raise error(f"{what} has no parameter {name!r}", hint=hint)
    for name, field in known.items():
        if name not in given and _required(field):
            raise error(f"{what} needs the parameter {name!r}")
    return {name: _check(known[name], value, what, error) for name, value in given.items()}


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _check(
    field: Field[Any], value: object, what: str, error: type[InvalidArgumentError]
) -> object:
    if value is None and field.default is None:
        return None
    if _TABLE in field.metadata:
        return declare(value, field.metadata[_TABLE], f"{what}: {field.name}", error)
    try:
        return field.metadata[_CHECK](value)
    except ValueError as need:
        raise error(f"{what}: {field.name} is {value!r}", hint=f"it must be {need}") from None


def _plain(value: object, field: Field[Any]) -> object:
    """As JSON has it: tuples as lists, and a declaration within a declaration likewise."""
    if _TABLE in field.metadata:
        return undeclare(value, field.metadata[_TABLE])
    if isinstance(value, list | tuple):
        return [_plain(item, field) for item in cast("Sequence[object]", value)]
    return value


def whole(minimum: int) -> Check:
    """A check for whole numbers of at least `minimum`."""

    def check(value: object) -> object:
        if not _is_whole(value, minimum):
            raise ValueError(f"a whole number of at least {minimum}")
        return int(cast("int", value))

    return check


def number(minimum: float = -math.inf, *, above: float = -math.inf) -> Check:
    """A check for finite numbers of at least `minimum` and greater than `above`."""
    bound = f" greater than {above:g}" if above > -math.inf else f" of at least {minimum:g}"
    need = "a number" + (bound if max(minimum, above) > -math.inf else "")

    def check(value: object) -> object:
        found = _real(value)
        if not math.isfinite(found) or found < minimum or found <= above:
            raise ValueError(need)
        return found

    return check


def fraction(value: object) -> object:
    """A check for numbers in [0, 1)."""
    found = _real(value)
    if not 0 <= found < 1:
        raise ValueError("a number of at least 0 and below 1")
    return found


def boolean(value: object) -> object:
    """A check for True and False."""
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def pair(value: object) -> object:
    """A check for two positive whole numbers; one number stands for both."""
    items = cast("Sequence[object]", value if isinstance(value, list | tuple) else (value, value))
    if len(items) != 2 or not all(_is_whole(item, 1) for item in items):
        raise ValueError("a positive whole number or a pair of them")
    return tuple(int(cast("int", item)) for item in items)


def numbers(value: object) -> object:
    """A check for a sequence of numbers."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of numbers")
    return tuple(number()(item) for item in cast("Sequence[object]", value))


def texts(value: object) -> object:
    """A check for a sequence of strings."""
    items = cast("Sequence[object]", value)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ValueError("a list of strings")
    return tuple(items)


def one_of(allowed: Iterable[str]) -> Check:
    """A check for one of the names in `allowed`, whose refusal names the nearest."""
    names = tuple(allowed)

    def check(value: object) -> object:
        if value not in names:
            raise ValueError(f"one of {', '.join(names)} ({nearest(str(value), names)})")
        return value

    return check


def _is_whole(value: object, minimum: int) -> bool:
    return type(value) is not bool and isinstance(value, Integral) and int(value) >= minimum


def _real(value: object) -> float:
    """`value` as a float; NaN, which passes no check, for what is not a number."""
    is_number = type(value) is not bool and isinstance(value, Real)
    return float(cast("float", value)) if is_number else math.nan
