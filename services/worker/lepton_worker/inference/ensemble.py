"""Several models in a row that are served as one: tensors pass between them by reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from lepton_ai.errors import InvalidArgumentError
from lepton_worker.inference.model import Servable
from lepton_worker.inference.signature import Signature, TensorSpec


class Plan(NamedTuple):
    """How models are linked.

    Attributes:
        signature: What the whole takes and gives.
        feeds: For each model the names of the tensors it takes, in the order of its inputs.
        results: For each model the names of the tensors it gives, in the order of its outputs.
    """

    signature: Signature
    feeds: list[list[str]]
    results: list[list[str]]


def link(signatures: Sequence[Signature], renames: Sequence[Mapping[str, str]]) -> Plan:
    """Decide which tensor goes where.

    An input takes the output of an earlier model that its renaming names, else one of its own
    name; a model's only input takes the only output of the model before; any other input is one of
    the whole. The whole gives what the last model gives.

    Args:
        signatures: Of the models, in the order in which they run.
        renames: For each model, which tensor an input takes.

    Raises:
        InvalidArgumentError: A renaming names what does not exist, or datatypes or shapes differ.
    """
    made: dict[str, TensorSpec] = {}
    wanted: dict[str, TensorSpec] = {}
    feeds: list[list[str]] = []
    for number, (signature, names) in enumerate(zip(signatures, renames, strict=True)):
        before = signatures[number - 1].outputs if number else None
        _check_names(number, signature, names, made)
        feeds.append([])
        for spec in signature.inputs:
            name = names.get(spec.name, spec.name)
            if before and name not in made and len(signature.inputs) == len(before) == 1:
                name = before[0].name
            known = made.get(name) or wanted.setdefault(name, spec._replace(name=name))
            _check_match(number, spec, known)
            feeds[-1].append(name)
        made |= {spec.name: spec for spec in signature.outputs}
    limits = [signature.max_batch_size for signature in signatures]
    whole = Signature(tuple(wanted.values()), signatures[-1].outputs, min(limits))
    results = [[spec.name for spec in signature.outputs] for signature in signatures]
    return Plan(whole, feeds, results)


class Ensemble:
    """Loaded models that run one after another. `run` may be called from several threads.

    Args:
        models: In the order in which they run.
        renames: For each model, which tensor an input takes where names differ.

    Raises:
        InvalidArgumentError: The models do not fit together; says where.
    """

    def __init__(self, models: Sequence[Servable], renames: Sequence[Mapping[str, str]]) -> None:
        self._models = models
        self._plan = link([model.signature for model in models], renames)
        self.signature = self._plan.signature
        self.size_bytes = sum(model.size_bytes for model in models)

    @property
    def uniform(self) -> bool:
        """Whether every row takes as long to compute as another, in a batch of any size."""
        return all(model.uniform for model in self._models)

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute.

        Args:
            arrays: One an input of the whole, in the signature's order.

        Returns:
            One array an output of the last model.
        """
        names = [spec.name for spec in self.signature.inputs]
        tensors = dict(zip(names, arrays, strict=True))
        outputs: list[NDArray[Any]] = []
        for model, feeds, results in zip(
            self._models, self._plan.feeds, self._plan.results, strict=True
        ):
            outputs = model.run([tensors[name] for name in feeds])
            tensors |= zip(results, outputs, strict=True)
        return outputs


def _check_names(
    number: int, signature: Signature, names: Mapping[str, str], made: Mapping[str, TensorSpec]
) -> None:
    inputs = [spec.name for spec in signature.inputs]
    for name, tensor in names.items():
        if name not in inputs:
            raise InvalidArgumentError(
                f"model {number + 1} of the ensemble has no input {name!r}",
                hint=f"it has {', '.join(inputs)}",
            )
        if tensor not in made:
            raise InvalidArgumentError(
                f"no model before model {number + 1} of the ensemble gives {tensor!r}",
                hint=f"they give {', '.join(made) or 'nothing'}",
            )


def _check_match(number: int, taken: TensorSpec, given: TensorSpec) -> None:
    sizes = zip(taken.shape, given.shape, strict=False)
    if (
        taken.datatype != given.datatype
        or len(taken.shape) != len(given.shape)
        or any(left != right and -1 not in (left, right) for left, right in sizes)
    ):
        raise InvalidArgumentError(
            f"model {number + 1} of the ensemble takes {taken.name!r} as {taken.datatype} "
            f"{list(taken.shape)}",
            hint=f"{given.name!r} is {given.datatype} {list(given.shape)}",
        )
