"""What people write on the command line, and what they mean by it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import typer

from lepton_ai.cli.output import SIZE_UNITS
from lepton_ai.errors import InvalidArgumentError
from lepton_ai.sweeps import Rungs, Value

__all__ = [
    "Json",
    "Labels",
    "name_and_version",
    "parse_duration",
    "parse_labels",
    "parse_options",
    "parse_range",
    "parse_rungs",
    "parse_size",
    "parse_space",
    "pinned_version",
]

Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="Only on workers with it, such as zone=a."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_SIZE = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,3}})?) ?({'|'.join(SIZE_UNITS)})?")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d{1,9}) ?([smhd])?")
_RANGE = re.compile(r"(?:(\d{1,4}):)?(\d{1,4})")


def parse_size(text: str) -> int:
    """The bytes that a person means.

    Raises:
        InvalidArgumentError: It is no size.

    Example:
        >>> parse_size("1.5KiB")
        1536
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgumentError(f"{text!r} is no size", hint="such as 500MiB, 2 TiB or 0")
    return round(float(found[1]) * 1024 ** SIZE_UNITS.index(found[2] or "B"))


def parse_duration(text: str) -> int:
    """The seconds that a person means.

    Raises:
        InvalidArgumentError: It is no duration.

    Example:
        >>> parse_duration("90m"), parse_duration("30")
        (5400, 30)
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise InvalidArgumentError(f"{text!r} is no duration", hint="such as 2h, 90m or 30s")
    return int(found[1]) * _SECONDS[found[2] or "s"]


def parse_range(text: str) -> tuple[int, int]:
    """What FEWEST:MOST says; without a colon it is the most, and the fewest is 1.

    Raises:
        InvalidArgumentError: It is no range.

    Example:
        >>> parse_range("2:4"), parse_range("3")
        ((2, 4), (1, 3))
    """
    found = _RANGE.fullmatch(text)
    if found is None:
        raise InvalidArgumentError(f"{text!r} is no range", hint="such as 4 or 2:4")
    return int(found[1] or 1), int(found[2])


def parse_options(texts: Iterable[str]) -> dict[str, int | list[int]]:
    """What several OPTION=VALUE say; a value is a number, or several with commas.

    Raises:
        InvalidArgumentError: One does not say it like this.

    Example:
        >>> parse_options(["max_batch_size=32", "preferred_batch_sizes=8,16"])
        {'max_batch_size': 32, 'preferred_batch_sizes': [8, 16]}
    """
    options: dict[str, int | list[int]] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not re.fullmatch(r"\d{1,15}(,\d{1,9})*", value):
            raise InvalidArgumentError(f"{text!r} is no option", hint="such as max_batch_size=32")
        numbers = [int(number) for number in value.split(",")]
        options[name] = numbers if len(numbers) > 1 else numbers[0]
    return options


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """What several NAME=VALUE say.

    Raises:
        InvalidArgumentError: One does not say it like this.

    Example:
        >>> parse_labels(["zone=a", "gpu=H100"])
        {'zone': 'a', 'gpu': 'H100'}
    """
    labels: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator):
            raise InvalidArgumentError(f"{text!r} is no label", hint="such as zone=a")
        labels[name] = value
    return labels


def name_and_version(text: str) -> tuple[str, int]:
    """What NAME:VERSION says; the version is 0 where it is left out.

    Raises:
        InvalidArgumentError: The version is no number.

    Example:
        >>> name_and_version("mnist:3"), name_and_version("mnist")
        (('mnist', 3), ('mnist', 0))
    """
    name, colon, version = text.partition(":")
    if colon and not version.isdecimal():
        raise InvalidArgumentError(f"{text!r} names no version", hint="such as 'mnist:3'")
    return name, int(version or 0)


def pinned_version(text: str) -> tuple[str, int]:
    """As `name_and_version`, where the version may not be left out."""
    name, version = name_and_version(text)
    if not version:
        raise InvalidArgumentError(f"{text!r} names no version", hint="such as 'mnist:3'")
    return name, version


def parse_space(texts: Iterable[str]) -> dict[str, list[Value] | str]:
    """What NAME=VALUE,VALUE and NAME=RANGE say.

    Raises:
        InvalidArgumentError: One says nothing.

    Example:
        >>> parse_space(["units=16,32", "act=relu,tanh", "lr=log:1e-4:1e-1"])
        {'units': [16, 32], 'act': ['relu', 'tanh'], 'lr': 'log:1e-4:1e-1'}
    """
    space: dict[str, list[Value] | str] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not (name and sign and values):
            raise InvalidArgumentError(f"{text!r} names no values", hint="such as lr=0.1,0.01")
        space[name] = values if ":" in values else [_value(part) for part in values.split(",")]
    return space


def parse_rungs(text: str) -> Rungs | None:
    """What PARAMETER:LEAST:MOST[:FACTOR] says; nothing for nothing.

    Raises:
        InvalidArgumentError: They are no rungs.

    Example:
        >>> parse_rungs("epochs:1:9")
        Rungs(parameter='epochs', least=1, most=9, factor=3)
    """
    if not text:
        return None
    name, *numbers = text.split(":")
    if not 2 <= len(numbers) <= 3 or not all(number.isdecimal() for number in numbers):
        raise InvalidArgumentError(
            f"{text!r} are no rungs", hint="such as epochs:1:9 or epochs:1:16:4"
        )
    return Rungs(name, *map(int, numbers))


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
