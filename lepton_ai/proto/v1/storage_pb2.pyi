import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lepton_ai.proto.v1 import options_pb2 as _options_pb2
from lepton_ai.proto.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Chunk(_message.Message):
    __slots__ = ("hash", "size_bytes", "nodes")
    HASH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    size_bytes: int
    nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hash: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class Object(_message.Message):
    __slots__ = ("id", "size_bytes", "chunks", "replication", "created_at", "tenant")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    id: str
    size_bytes: int
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    replication: int
    created_at: _timestamp_pb2.Timestamp
    tenant: str
    def __init__(self, id: _Optional[str] = ..., size_bytes: _Optional[int] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., replication: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant: _Optional[str] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "dtype", "row_shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    ROW_SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    row_shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., row_shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Split(_message.Message):
    __slots__ = ("name", "object_id", "rows", "columns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    name: str
    object_id: str
    rows: int
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, name: _Optional[str] = ..., object_id: _Optional[str] = ..., rows: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class DatasetOrigin(_message.Message):
    __slots__ = ("job_id", "model", "dataset", "dataset_object", "variant")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    DATASET_OBJECT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    model: str
    dataset: str
    dataset_object: str
    variant: str
    def __init__(self, job_id: _Optional[str] = ..., model: _Optional[str] = ..., dataset: _Optional[str] = ..., dataset_object: _Optional[str] = ..., variant: _Optional[str] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "version", "splits", "tenant", "created_at", "deleted_at", "origin")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DELETED_AT_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    splits: _containers.RepeatedCompositeFieldContainer[Split]
    tenant: str
    created_at: _timestamp_pb2.Timestamp
    deleted_at: _timestamp_pb2.Timestamp
    origin: DatasetOrigin
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., splits: _Optional[_Iterable[_Union[Split, _Mapping]]] = ..., tenant: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deleted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., origin: _Optional[_Union[DatasetOrigin, _Mapping]] = ...) -> None: ...

class ModelVariant(_message.Message):
    __slots__ = ("kind", "onnx_object", "agreement")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ONNX_OBJECT_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    onnx_object: str
    agreement: float
    def __init__(self, kind: _Optional[str] = ..., onnx_object: _Optional[str] = ..., agreement: _Optional[float] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "onnx_object", "weights_object", "model_config", "job_id", "dataset", "dataset_object", "metrics", "libraries", "tenant", "created_at", "deleted_at", "variants")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LibrariesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ONNX_OBJECT_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_OBJECT_FIELD_NUMBER: _ClassVar[int]
    MODEL_CONFIG_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    DATASET_OBJECT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LIBRARIES_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DELETED_AT_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    onnx_object: str
    weights_object: str
    model_config: str
    job_id: str
    dataset: str
    dataset_object: str
    metrics: _containers.ScalarMap[str, float]
    libraries: _containers.ScalarMap[str, str]
    tenant: str
    created_at: _timestamp_pb2.Timestamp
    deleted_at: _timestamp_pb2.Timestamp
    variants: _containers.RepeatedCompositeFieldContainer[ModelVariant]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., onnx_object: _Optional[str] = ..., weights_object: _Optional[str] = ..., model_config: _Optional[str] = ..., job_id: _Optional[str] = ..., dataset: _Optional[str] = ..., dataset_object: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ..., libraries: _Optional[_Mapping[str, str]] = ..., tenant: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deleted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., variants: _Optional[_Iterable[_Union[ModelVariant, _Mapping]]] = ...) -> None: ...

class Alias(_message.Message):
    __slots__ = ("model", "name", "version", "moved_at")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MOVED_AT_FIELD_NUMBER: _ClassVar[int]
    model: str
    name: str
    version: int
    moved_at: _timestamp_pb2.Timestamp
    def __init__(self, model: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., moved_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CommitObjectRequest(_message.Message):
    __slots__ = ("chunks", "content", "expected_id", "replication")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    content: bytes
    expected_id: str
    replication: int
    def __init__(self, chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., content: _Optional[bytes] = ..., expected_id: _Optional[str] = ..., replication: _Optional[int] = ...) -> None: ...

class CommitObjectResponse(_message.Message):
    __slots__ = ("object", "missing")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    object: Object
    missing: _containers.RepeatedCompositeFieldContainer[MissingChunk]
    def __init__(self, object: _Optional[_Union[Object, _Mapping]] = ..., missing: _Optional[_Iterable[_Union[MissingChunk, _Mapping]]] = ...) -> None: ...

class MissingChunk(_message.Message):
    __slots__ = ("hash", "addresses")
    HASH_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hash: _Optional[bytes] = ..., addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class KeepChunksRequest(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[KeptChunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[KeptChunk, _Mapping]]] = ...) -> None: ...

class KeptChunk(_message.Message):
    __slots__ = ("hash", "data", "tenant")
    HASH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    data: bytes
    tenant: str
    def __init__(self, hash: _Optional[bytes] = ..., data: _Optional[bytes] = ..., tenant: _Optional[str] = ...) -> None: ...

class ObjectPlaces(_message.Message):
    __slots__ = ("object", "addresses")
    class AddressesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    object: Object
    addresses: _containers.ScalarMap[str, str]
    def __init__(self, object: _Optional[_Union[Object, _Mapping]] = ..., addresses: _Optional[_Mapping[str, str]] = ...) -> None: ...

class StatObjectRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class StatObjectResponse(_message.Message):
    __slots__ = ("object",)
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    object: Object
    def __init__(self, object: _Optional[_Union[Object, _Mapping]] = ...) -> None: ...

class DeleteObjectRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteObjectResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainNodeRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    def __init__(self, node_id: _Optional[str] = ...) -> None: ...

class DrainNodeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UndrainNodeRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    def __init__(self, node_id: _Optional[str] = ...) -> None: ...

class UndrainNodeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Quota(_message.Message):
    __slots__ = ("size_bytes",)
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    def __init__(self, size_bytes: _Optional[int] = ...) -> None: ...

class TenantUsage(_message.Message):
    __slots__ = ("tenant", "objects", "size_bytes", "quota_bytes")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    objects: int
    size_bytes: int
    quota_bytes: int
    def __init__(self, tenant: _Optional[str] = ..., objects: _Optional[int] = ..., size_bytes: _Optional[int] = ..., quota_bytes: _Optional[int] = ...) -> None: ...

class ListUsageRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListUsageResponse(_message.Message):
    __slots__ = ("tenants",)
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    tenants: _containers.RepeatedCompositeFieldContainer[TenantUsage]
    def __init__(self, tenants: _Optional[_Iterable[_Union[TenantUsage, _Mapping]]] = ...) -> None: ...

class SetQuotaRequest(_message.Message):
    __slots__ = ("tenant", "size_bytes")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    size_bytes: int
    def __init__(self, tenant: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class SetQuotaResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListChunksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListChunksResponse(_message.Message):
    __slots__ = ("good", "bad")
    GOOD_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    good: _containers.RepeatedScalarFieldContainer[bytes]
    bad: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, good: _Optional[_Iterable[bytes]] = ..., bad: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CheckStorageRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckStorageResponse(_message.Message):
    __slots__ = ("copies_so_far", "finding", "summary")
    COPIES_SO_FAR_FIELD_NUMBER: _ClassVar[int]
    FINDING_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    copies_so_far: int
    finding: Finding
    summary: CheckSummary
    def __init__(self, copies_so_far: _Optional[int] = ..., finding: _Optional[_Union[Finding, _Mapping]] = ..., summary: _Optional[_Union[CheckSummary, _Mapping]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("problem", "object_id", "chunk", "node_id", "named_by")
    class Problem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PROBLEM_UNSPECIFIED: _ClassVar[Finding.Problem]
        PROBLEM_WRONG_MANIFEST: _ClassVar[Finding.Problem]
        PROBLEM_UNREADABLE_CHUNK: _ClassVar[Finding.Problem]
        PROBLEM_BAD_COPY: _ClassVar[Finding.Problem]
        PROBLEM_MISSING_COPY: _ClassVar[Finding.Problem]
        PROBLEM_TOO_FEW_COPIES: _ClassVar[Finding.Problem]
        PROBLEM_MISSING_OBJECT: _ClassVar[Finding.Problem]
    PROBLEM_UNSPECIFIED: Finding.Problem
    PROBLEM_WRONG_MANIFEST: Finding.Problem
    PROBLEM_UNREADABLE_CHUNK: Finding.Problem
    PROBLEM_BAD_COPY: Finding.Problem
    PROBLEM_MISSING_COPY: Finding.Problem
    PROBLEM_TOO_FEW_COPIES: Finding.Problem
    PROBLEM_MISSING_OBJECT: Finding.Problem
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAMED_BY_FIELD_NUMBER: _ClassVar[int]
    problem: Finding.Problem
    object_id: str
    chunk: bytes
    node_id: str
    named_by: str
    def __init__(self, problem: _Optional[_Union[Finding.Problem, str]] = ..., object_id: _Optional[str] = ..., chunk: _Optional[bytes] = ..., node_id: _Optional[str] = ..., named_by: _Optional[str] = ...) -> None: ...

class CheckSummary(_message.Message):
    __slots__ = ("objects", "chunks", "copies", "unnamed_copies", "unnamed_objects", "findings")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    UNNAMED_COPIES_FIELD_NUMBER: _ClassVar[int]
    UNNAMED_OBJECTS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    objects: int
    chunks: int
    copies: int
    unnamed_copies: int
    unnamed_objects: int
    findings: int
    def __init__(self, objects: _Optional[int] = ..., chunks: _Optional[int] = ..., copies: _Optional[int] = ..., unnamed_copies: _Optional[int] = ..., unnamed_objects: _Optional[int] = ..., findings: _Optional[int] = ...) -> None: ...

class RotateMasterKeyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RotateMasterKeyResponse(_message.Message):
    __slots__ = ("tenants",)
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    tenants: int
    def __init__(self, tenants: _Optional[int] = ...) -> None: ...

class HasChunksRequest(_message.Message):
    __slots__ = ("hashes",)
    HASHES_FIELD_NUMBER: _ClassVar[int]
    hashes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, hashes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class HasChunksResponse(_message.Message):
    __slots__ = ("hashes",)
    HASHES_FIELD_NUMBER: _ClassVar[int]
    hashes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, hashes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CreateDatasetRequest(_message.Message):
    __slots__ = ("name", "splits", "origin", "writer")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    name: str
    splits: _containers.RepeatedCompositeFieldContainer[Split]
    origin: DatasetOrigin
    writer: _task_pb2.Task
    def __init__(self, name: _Optional[str] = ..., splits: _Optional[_Iterable[_Union[Split, _Mapping]]] = ..., origin: _Optional[_Union[DatasetOrigin, _Mapping]] = ..., writer: _Optional[_Union[_task_pb2.Task, _Mapping]] = ...) -> None: ...

class CreateDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ...) -> None: ...

class PublishModelRequest(_message.Message):
    __slots__ = ("model", "writer")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    model: Model
    writer: _task_pb2.Task
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., writer: _Optional[_Union[_task_pb2.Task, _Mapping]] = ...) -> None: ...

class PublishModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class MoveAliasRequest(_message.Message):
    __slots__ = ("model", "alias", "version", "from_version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    alias: str
    version: int
    from_version: int
    def __init__(self, model: _Optional[str] = ..., alias: _Optional[str] = ..., version: _Optional[int] = ..., from_version: _Optional[int] = ...) -> None: ...

class MoveAliasResponse(_message.Message):
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: Alias
    def __init__(self, alias: _Optional[_Union[Alias, _Mapping]] = ...) -> None: ...

class DeleteAliasRequest(_message.Message):
    __slots__ = ("model", "alias")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    model: str
    alias: str
    def __init__(self, model: _Optional[str] = ..., alias: _Optional[str] = ...) -> None: ...

class DeleteAliasResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAliasesRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListAliasesResponse(_message.Message):
    __slots__ = ("aliases",)
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    aliases: _containers.RepeatedCompositeFieldContainer[Alias]
    def __init__(self, aliases: _Optional[_Iterable[_Union[Alias, _Mapping]]] = ...) -> None: ...

class DeleteModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DeleteModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RetentionRule(_message.Message):
    __slots__ = ("newest",)
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    newest: int
    def __init__(self, newest: _Optional[int] = ...) -> None: ...

class SetRetentionRequest(_message.Message):
    __slots__ = ("model", "newest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    newest: int
    def __init__(self, model: _Optional[str] = ..., newest: _Optional[int] = ...) -> None: ...

class SetRetentionResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: int
    def __init__(self, removed: _Optional[int] = ...) -> None: ...

class DeleteDatasetRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DeleteDatasetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...
