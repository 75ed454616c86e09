"""The one tree of errors, and the one table from errors to gRPC and HTTP status.

Every error says what happened, what to do about it (`hint`), and which things it is about
(`ids`). The same error reaches a caller of the SDK, of gRPC, of REST and of the command line.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "AlreadyExistsError",
    "CancelledError",
    "ConflictError",
    "DataCorruptError",
    "DataError",
    "DeadlineExceededError",
    "InternalError",
    "InvalidArgumentError",
    "LayerError",
    "LeptonError",
    "NotFittedError",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "StaleTokenError",
    "Status",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "error_from_http",
    "error_from_status",
    "status_of",
]


class LeptonError(Exception):
    """Base of every error Lepton raises.

    Args:
        message: What happened, in one sentence, naming the offending value.
        hint: What to do about it, or what is allowed. May be empty.
        ids: What the error is about, such as ``job="j-1"``, ``model="mnist"``.

    Attributes:
        retry_after_s: How long to wait before asking again, in seconds, where the server said so.

    Example:
        >>> error = NotFoundError("model 'mnits' does not exist", hint="did you mean 'mnist'?")
        >>> str(error)
        "model 'mnits' does not exist: did you mean 'mnist'?"
    """

    retry_after_s: float | None = None

    def __init__(self, message: str, *, hint: str = "", **ids: str) -> None:
        self.message = message
        self.hint = hint
        self.ids = ids
        super().__init__(f"{message}: {hint}" if hint else message)


class InvalidArgumentError(LeptonError, ValueError):
    """The caller sent something that can never be right; it names what is allowed."""


class LayerError(InvalidArgumentError):
    """A layer list cannot become a model: says which layer, what it got, what it needs."""


class DataError(InvalidArgumentError):
    """Data has the wrong length, shape, type or values (such as NaN)."""


class NotFoundError(LeptonError, LookupError):
    """The named thing does not exist."""


class AlreadyExistsError(LeptonError):
    """The name is taken; versions and names are never overwritten silently."""


class ConflictError(LeptonError):
    """The thing is in a state in which this cannot be done, or changed underneath the caller."""


class NotFittedError(ConflictError):
    """`predict`, `evaluate` or `save` was called on a model that has not been built or fitted."""


class StaleTokenError(ConflictError):
    """A write carried an old fencing token or attempt: its author has been replaced."""


class UnauthenticatedError(LeptonError):
    """No key came with the call, or the key is not valid here."""


class PermissionDeniedError(LeptonError):
    """The key is valid but does not allow this."""


class ResourceExhaustedError(LeptonError):
    """A limit, a quota, a queue or a disk is full."""


class UnavailableError(LeptonError):
    """Something needed is not answering now; the call may be tried again."""


class DeadlineExceededError(LeptonError, TimeoutError):
    """The deadline passed before the answer was there."""


class CancelledError(LeptonError):
    """The caller or an operator cancelled it."""


class DataCorruptError(LeptonError):
    """Bytes do not match their checksum and no good copy was found."""


class UnimplementedError(LeptonError):
    """This build does not offer the call."""


class InternalError(LeptonError):
    """A defect of Lepton. Its details are in the service's log, never in the answer."""


class Status(NamedTuple):
    """How an error travels: the number of a `google.rpc.Code` and an HTTP status."""

    grpc: int
    http: int


# The nearest class in an error's ancestry decides, so a subclass needs a row only to differ.
_TABLE: dict[type[LeptonError], Status] = {
    InvalidArgumentError: Status(3, 400),
    NotFoundError: Status(5, 404),
    AlreadyExistsError: Status(6, 409),
    ConflictError: Status(9, 409),
    StaleTokenError: Status(10, 409),
    UnauthenticatedError: Status(16, 401),
    PermissionDeniedError: Status(7, 403),
    ResourceExhaustedError: Status(8, 429),
    UnavailableError: Status(14, 503),
    DeadlineExceededError: Status(4, 504),
    CancelledError: Status(1, 499),
    DataCorruptError: Status(15, 500),
    UnimplementedError: Status(12, 501),
    InternalError: Status(13, 500),
}
_BY_GRPC = {status.grpc: kind for kind, status in _TABLE.items()}
_BY_HTTP: dict[int, type[LeptonError]] = {
    400: InvalidArgumentError,
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: ResourceExhaustedError,
    429: ResourceExhaustedError,
    499: CancelledError,
    501: UnimplementedError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineExceededError,
}
_BY_NAME = {name: globals()[name] for name in __all__ if name.endswith("Error")}


def status_of(error: BaseException) -> Status:
    """The gRPC and HTTP status of any error; what is not ours counts as `InternalError`."""
    for kind in type(error).__mro__:
        if kind in _TABLE:
            return _TABLE[kind]
    return _TABLE[InternalError]


def error_from_status(
    grpc_code: int, message: str, *, hint: str = "", reason: str = "", **ids: str
) -> LeptonError:
    """Rebuild an error that came over the wire.

    Args:
        grpc_code: A `google.rpc.Code` number.
        message: The text of the status.
        hint: The hint that came with it, if any.
        reason: The class name the sender gave, preferred over the code when it is known.
        ids: The ids that came with it.
    """
    kind = _BY_NAME.get(reason) or _BY_GRPC.get(grpc_code, InternalError)
    return kind(message, hint=hint, **ids)


def error_from_http(http: int, message: str, *, hint: str = "", reason: str = "") -> LeptonError:
    """Rebuild an error that came as an HTTP answer.

    Args:
        http: The status of the answer.
        message: What it says.
        hint: The hint that came with it, if any.
        reason: The class name the sender gave, preferred over the status when it is known.
    """
    kind = _BY_NAME.get(reason) or _BY_HTTP.get(http, InternalError)
    return kind(message, hint=hint)
