"""What a model takes and gives, and whether a request fits it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.oip import Tensor, decode_raw, numpy_dtype


class TensorSpec(NamedTuple):
    """One input or output of a model.

    Attributes:
        name: Its name in the model.
        datatype: Its datatype in the protocol.
        shape: Its dimensions, -1 for one that may vary. With batching the first is the batch's.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """The inputs and outputs of a model.

    Attributes:
        inputs: In the model's order.
        outputs: In the model's order.
        max_batch_size: Rows a batch may have at most; 0 for a model whose requests cannot share
            a batch.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int

    @property
    def is_uniform(self) -> bool:
        """Whether all rows are of one size: texts, and what has another free dimension, are not."""
        axes = slice(1 if self.max_batch_size else 0, None)
        return not any(-1 in spec.shape[axes] or spec.datatype == "BYTES" for spec in self.inputs)

    def arrange(self, tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
        """The arrays of a request in the model's order.

        Raises:
            InvalidArgumentError: An input is missing, unknown, repeated, or has the wrong type
                or shape, or the batch is empty or too large.
        """
        given = tuple([(name, datatype, array.shape) for name, datatype, array in tensors])
        return [tensors[place].array for place in _places(self, given)]

    def rows(self, arrays: Sequence[NDArray[Any]]) -> int:
        """How many rows a request brings to a batch: 1 for a model without batching."""
        return arrays[0].shape[0] if self.max_batch_size else 1

    def select(self, names: Sequence[str]) -> Sequence[int]:
        """The positions of the wanted outputs; all when no name is given.

        Raises:
            InvalidArgumentError: The model has no output of that name.
        """
        if not names:
            return range(len(self.outputs))
        known = [spec.name for spec in self.outputs]
        for name in names:
            if name not in known:
                raise InvalidArgumentError(
                    f"output {name!r} does not exist", hint=_allowed(name, known)
                )
        return [known.index(name) for name in names]

    def raw_tensor(self, body: bytes) -> Tensor:
        """The one input of a request that is nothing but its raw bytes.

        Raises:
            InvalidArgumentError: The model has several inputs, or one whose shape does not
                follow from the number of bytes.
        """
        if len(self.inputs) != 1:
            raise InvalidArgumentError(
                f"a body without JSON fits models of one input, this one has {len(self.inputs)}"
            )
        spec = self.inputs[0]
        return decode_raw(spec.name, spec.datatype, _raw_shape(spec, len(body)), body)


# Clients send tensors of the same few shapes again and again.
@lru_cache(1024)
def _places(
    signature: Signature, tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
) -> tuple[int, ...]:
    """Where each input of the model is among those given, which are checked."""
    given = [TensorSpec(*tensor) for tensor in tensors]
    known = [spec.name for spec in signature.inputs]
    names = [spec.name for spec in given]
    if sorted(names) != sorted(known):
        raise _wrong_inputs(known, names)
    for spec in signature.inputs:
        _check(spec, given[names.index(spec.name)])
    if signature.max_batch_size:
        _check_rows({spec.shape[0] for spec in given}, signature.max_batch_size)
    return tuple(map(names.index, known))


def _check(spec: TensorSpec, given: TensorSpec) -> None:
    if given.datatype != spec.datatype:
        raise InvalidArgumentError(
            f"input {spec.name!r} has datatype {given.datatype}",
            hint=f"this model takes {spec.datatype}",
        )
    shape = given.shape
    if len(shape) != len(spec.shape) or any(
        wanted not in (-1, size) for wanted, size in zip(spec.shape, shape, strict=True)
    ):
        raise InvalidArgumentError(
            f"input {spec.name!r} has shape {list(shape)}",
            hint=f"this model takes {list(spec.shape)}, where -1 is any size",
        )
    if 0 in shape:
        raise InvalidArgumentError(
            f"input {spec.name!r} is empty: shape {list(shape)}", hint="send at least one row"
        )


def _check_rows(rows: set[int], limit: int) -> None:
    if len(rows) != 1:
        raise InvalidArgumentError(
            f"the inputs have {sorted(rows)} rows", hint="all need the same number"
        )
    if max(rows) > limit:
        raise InvalidArgumentError(
            f"the request has {max(rows)} rows", hint=f"this model takes 1 to {limit} in a request"
        )


def _wrong_inputs(known: list[str], names: list[str]) -> InvalidArgumentError:
    for name in names:
        if name not in known:
            return InvalidArgumentError(
                f"input {name!r} does not exist", hint=_allowed(name, known)
            )
    missing = [name for name in known if name not in names]
    if missing:
        return InvalidArgumentError(
            f"input {missing[0]!r} is missing", hint=f"this model needs {', '.join(known)}"
        )
    return InvalidArgumentError("an input comes twice", hint="send each exactly once")


def _raw_shape(spec: TensorSpec, size_bytes: int) -> tuple[int, ...]:
    free = [axis for axis, size in enumerate(spec.shape) if size == -1]
    if len(free) > 1:
        raise InvalidArgumentError(
            f"the shape of input {spec.name!r}, {list(spec.shape)}, does not follow from its bytes"
        )
    if spec.datatype == "BYTES":
        return tuple(1 if size == -1 else size for size in spec.shape)
    fixed_bytes = numpy_dtype(spec.datatype).itemsize * math.prod(
        size for size in spec.shape if size != -1
    )
    return tuple(size_bytes // fixed_bytes if size == -1 else size for size in spec.shape)


def _allowed(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    allowed = f"this model has {', '.join(known)}"
    return f"did you mean {nearest[0]!r}? {allowed}" if nearest else allowed
