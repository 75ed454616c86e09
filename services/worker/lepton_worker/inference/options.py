"""How one model is served: what a deployment or a command line may say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lepton_ai.errors import InvalidArgumentError

_MOST = {
    "max_batch_size": 65536,
    "max_queue_delay_us": 1_000_000,
    "queue_capacity": 1_000_000,
    "cache_bytes": 1 << 40,
}


class ServingOptions(NamedTuple):
    """How one model is served.

    Attributes:
        max_batch_size: Rows in a batch at most, if the model allows batches; 0 for no batches.
        preferred_batch_sizes: Rows of batches that the model computes best: a batch ends there
            when enough waits.
        max_queue_delay_us: Microseconds a batch may wait for more rows while many ask; nothing
            waits where requests come one by one.
        queue_capacity: Requests that may wait.
        cache_bytes: Answers kept for requests that come again; 0 for none.
    """

    max_batch_size: int = 64
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    queue_capacity: int = 512
    cache_bytes: int = 0

    def changed(self, fields: Mapping[str, Any]) -> ServingOptions:
        """Itself with some fields replaced.

        Raises:
            InvalidArgumentError: A field does not exist or has a value without sense.
        """
        for name, value in fields.items():
            if name == "preferred_batch_sizes":
                _check_sizes(value)
            elif name not in _MOST:
                raise InvalidArgumentError(
                    f"option {name!r} does not exist", hint=f"there are {', '.join(self._fields)}"
                )
            elif type(value) is not int or not 0 <= value <= _MOST[name]:
                raise InvalidArgumentError(
                    f"{name} {value!r} is no whole number from 0 to {_MOST[name]}"
                )
        options = self._replace(**fields)
        return options._replace(preferred_batch_sizes=tuple(options.preferred_batch_sizes))


def parse_value(option: str, text: str) -> int | list[int]:
    """The value of an option as a command line gives it: a number, or several with commas.

    Raises:
        InvalidArgumentError: It is neither.
    """
    try:
        if option == "preferred_batch_sizes":
            return [int(part) for part in text.split(",")]
        return int(text)
    except ValueError:
        raise InvalidArgumentError(f"{option} {text!r} is no number", hint="such as 32") from None


def _check_sizes(sizes: Any) -> None:
    good = isinstance(sizes, list | tuple) and all(type(size) is int and size > 0 for size in sizes)
    if not good:
        raise InvalidArgumentError(
            f"preferred_batch_sizes {sizes!r} are no numbers of rows", hint="such as [8, 16]"
        )
