"""What a deployment says of how its replicas serve, from a person's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.proto.v1 import deployment_pb2

__all__ = ["ensemble_step", "serving_options"]


def ensemble_step(text: str) -> deployment_pb2.EnsembleStep:
    """The model that ``"name"`` or ``"name:3"`` means.

    Raises:
        InvalidArgumentError: The version is no number.
    """
    name, colon, version = text.partition(":")
    if colon and not version.isdecimal():
        raise InvalidArgumentError(f"{text!r} names no version", hint="such as 'tokens:3'")
    return deployment_pb2.EnsembleStep(model=name, version=int(version or 0))


def serving_options(
    fields: Mapping[str, int | Sequence[int]],
) -> deployment_pb2.ServingOptions:
    """Options by name.

    Raises:
        InvalidArgumentError: An option does not exist, or its value is none it can have.
    """
    known = deployment_pb2.ServingOptions.DESCRIPTOR.fields_by_name
    options = deployment_pb2.ServingOptions()
    for name, value in fields.items():
        if name not in known:
            raise InvalidArgumentError(
                f"option {name!r} does not exist", hint=f"there are {', '.join(known)}"
            )
        try:
            if known[name].is_repeated:
                getattr(options, name).extend([value] if isinstance(value, int) else value)
            else:
                setattr(options, name, value)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"{name} is {value!r}", hint=str(error)) from None
    return options
