import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lepton_ai.proto.v1 import options_pb2 as _options_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateKeyRequest(_message.Message):
    __slots__ = ("tenant", "role", "ttl_s", "may_run_code")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    MAY_RUN_CODE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    role: _options_pb2.Role
    ttl_s: int
    may_run_code: bool
    def __init__(self, tenant: _Optional[str] = ..., role: _Optional[_Union[_options_pb2.Role, str]] = ..., ttl_s: _Optional[int] = ..., may_run_code: _Optional[bool] = ...) -> None: ...

class CreateKeyResponse(_message.Message):
    __slots__ = ("key", "id", "expires_at")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    key: str
    id: str
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, key: _Optional[str] = ..., id: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RevokeKeyRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RevokeKeyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "workers", "storage_nodes", "schedulers", "gateways", "active_jobs", "deployments", "ready_replicas", "models", "datasets", "storage_free_bytes", "under_replicated_chunks", "unreadable_chunks")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    STORAGE_NODES_FIELD_NUMBER: _ClassVar[int]
    SCHEDULERS_FIELD_NUMBER: _ClassVar[int]
    GATEWAYS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_JOBS_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    READY_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNDER_REPLICATED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    version: str
    workers: int
    storage_nodes: int
    schedulers: int
    gateways: int
    active_jobs: int
    deployments: int
    ready_replicas: int
    models: int
    datasets: int
    storage_free_bytes: int
    under_replicated_chunks: int
    unreadable_chunks: int
    def __init__(self, version: _Optional[str] = ..., workers: _Optional[int] = ..., storage_nodes: _Optional[int] = ..., schedulers: _Optional[int] = ..., gateways: _Optional[int] = ..., active_jobs: _Optional[int] = ..., deployments: _Optional[int] = ..., ready_replicas: _Optional[int] = ..., models: _Optional[int] = ..., datasets: _Optional[int] = ..., storage_free_bytes: _Optional[int] = ..., under_replicated_chunks: _Optional[int] = ..., unreadable_chunks: _Optional[int] = ...) -> None: ...
