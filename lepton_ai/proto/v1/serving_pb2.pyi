from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServingReport(_message.Message):
    __slots__ = ("node_id", "incarnation", "deployments")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    incarnation: str
    deployments: _containers.RepeatedCompositeFieldContainer[DeploymentLoad]
    def __init__(self, node_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., deployments: _Optional[_Iterable[_Union[DeploymentLoad, _Mapping]]] = ...) -> None: ...

class DeploymentLoad(_message.Message):
    __slots__ = ("name", "traffic_revision", "waiting", "versions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_REVISION_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    traffic_revision: int
    waiting: int
    versions: _containers.RepeatedCompositeFieldContainer[VersionLoad]
    def __init__(self, name: _Optional[str] = ..., traffic_revision: _Optional[int] = ..., waiting: _Optional[int] = ..., versions: _Optional[_Iterable[_Union[VersionLoad, _Mapping]]] = ...) -> None: ...

class VersionLoad(_message.Message):
    __slots__ = ("version", "healthy", "outstanding", "requests", "errors", "seconds", "compared_rows", "agreed_rows", "unanswered_rows", "dropped")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    OUTSTANDING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMPARED_ROWS_FIELD_NUMBER: _ClassVar[int]
    AGREED_ROWS_FIELD_NUMBER: _ClassVar[int]
    UNANSWERED_ROWS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    version: int
    healthy: int
    outstanding: int
    requests: int
    errors: int
    seconds: float
    compared_rows: int
    agreed_rows: int
    unanswered_rows: int
    dropped: int
    def __init__(self, version: _Optional[int] = ..., healthy: _Optional[int] = ..., outstanding: _Optional[int] = ..., requests: _Optional[int] = ..., errors: _Optional[int] = ..., seconds: _Optional[float] = ..., compared_rows: _Optional[int] = ..., agreed_rows: _Optional[int] = ..., unanswered_rows: _Optional[int] = ..., dropped: _Optional[int] = ...) -> None: ...
