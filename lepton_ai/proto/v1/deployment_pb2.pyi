import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lepton_ai.proto.v1 import node_pb2 as _node_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeploymentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEPLOYMENT_STATE_UNSPECIFIED: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_PROGRESSING: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_READY: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_DEGRADED: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_FAILED: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_ROLLED_BACK: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_ASLEEP: _ClassVar[DeploymentState]
DEPLOYMENT_STATE_UNSPECIFIED: DeploymentState
DEPLOYMENT_STATE_PROGRESSING: DeploymentState
DEPLOYMENT_STATE_READY: DeploymentState
DEPLOYMENT_STATE_DEGRADED: DeploymentState
DEPLOYMENT_STATE_FAILED: DeploymentState
DEPLOYMENT_STATE_ROLLED_BACK: DeploymentState
DEPLOYMENT_STATE_ASLEEP: DeploymentState

class Scale(_message.Message):
    __slots__ = ("min_replicas", "max_replicas", "target_outstanding", "calm_s")
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TARGET_OUTSTANDING_FIELD_NUMBER: _ClassVar[int]
    CALM_S_FIELD_NUMBER: _ClassVar[int]
    min_replicas: int
    max_replicas: int
    target_outstanding: int
    calm_s: float
    def __init__(self, min_replicas: _Optional[int] = ..., max_replicas: _Optional[int] = ..., target_outstanding: _Optional[int] = ..., calm_s: _Optional[float] = ...) -> None: ...

class RolloutSpec(_message.Message):
    __slots__ = ("stage_s", "stage_requests", "hold_percent", "shadow_percent", "min_agreement", "tolerance")
    STAGE_S_FIELD_NUMBER: _ClassVar[int]
    STAGE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    HOLD_PERCENT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MIN_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    stage_s: float
    stage_requests: int
    hold_percent: int
    shadow_percent: int
    min_agreement: float
    tolerance: float
    def __init__(self, stage_s: _Optional[float] = ..., stage_requests: _Optional[int] = ..., hold_percent: _Optional[int] = ..., shadow_percent: _Optional[int] = ..., min_agreement: _Optional[float] = ..., tolerance: _Optional[float] = ...) -> None: ...

class ServingOptions(_message.Message):
    __slots__ = ("max_batch_size", "preferred_batch_sizes", "max_queue_delay_us", "queue_capacity", "cache_bytes")
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_BATCH_SIZES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_DELAY_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_batch_size: int
    preferred_batch_sizes: _containers.RepeatedScalarFieldContainer[int]
    max_queue_delay_us: int
    queue_capacity: int
    cache_bytes: int
    def __init__(self, max_batch_size: _Optional[int] = ..., preferred_batch_sizes: _Optional[_Iterable[int]] = ..., max_queue_delay_us: _Optional[int] = ..., queue_capacity: _Optional[int] = ..., cache_bytes: _Optional[int] = ...) -> None: ...

class EnsembleStep(_message.Message):
    __slots__ = ("model", "version", "inputs")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    inputs: _containers.ScalarMap[str, str]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., inputs: _Optional[_Mapping[str, str]] = ...) -> None: ...

class DeploymentSpec(_message.Message):
    __slots__ = ("name", "model", "version", "replicas", "alias", "resources", "scale", "rollout", "hedge_after_s", "labels", "options", "before", "after", "inputs", "variant")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    HEDGE_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    version: int
    replicas: int
    alias: str
    resources: _node_pb2.Resources
    scale: Scale
    rollout: RolloutSpec
    hedge_after_s: float
    labels: _containers.ScalarMap[str, str]
    options: ServingOptions
    before: _containers.RepeatedCompositeFieldContainer[EnsembleStep]
    after: _containers.RepeatedCompositeFieldContainer[EnsembleStep]
    inputs: _containers.ScalarMap[str, str]
    variant: str
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., replicas: _Optional[int] = ..., alias: _Optional[str] = ..., resources: _Optional[_Union[_node_pb2.Resources, _Mapping]] = ..., scale: _Optional[_Union[Scale, _Mapping]] = ..., rollout: _Optional[_Union[RolloutSpec, _Mapping]] = ..., hedge_after_s: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ..., options: _Optional[_Union[ServingOptions, _Mapping]] = ..., before: _Optional[_Iterable[_Union[EnsembleStep, _Mapping]]] = ..., after: _Optional[_Iterable[_Union[EnsembleStep, _Mapping]]] = ..., inputs: _Optional[_Mapping[str, str]] = ..., variant: _Optional[str] = ...) -> None: ...

class Rollout(_message.Message):
    __slots__ = ("version", "percent", "stage_began_at", "since_revision")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    STAGE_BEGAN_AT_FIELD_NUMBER: _ClassVar[int]
    SINCE_REVISION_FIELD_NUMBER: _ClassVar[int]
    version: int
    percent: int
    stage_began_at: _timestamp_pb2.Timestamp
    since_revision: int
    def __init__(self, version: _Optional[int] = ..., percent: _Optional[int] = ..., stage_began_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., since_revision: _Optional[int] = ...) -> None: ...

class TrafficShare(_message.Message):
    __slots__ = ("version", "percent")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    version: int
    percent: int
    def __init__(self, version: _Optional[int] = ..., percent: _Optional[int] = ...) -> None: ...

class Shadow(_message.Message):
    __slots__ = ("version", "beside", "percent", "tolerance")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BESIDE_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    version: int
    beside: int
    percent: int
    tolerance: float
    def __init__(self, version: _Optional[int] = ..., beside: _Optional[int] = ..., percent: _Optional[int] = ..., tolerance: _Optional[float] = ...) -> None: ...

class Agreement(_message.Message):
    __slots__ = ("version", "beside", "rows", "agreed", "unanswered", "dropped", "counted_at")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BESIDE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    AGREED_FIELD_NUMBER: _ClassVar[int]
    UNANSWERED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    COUNTED_AT_FIELD_NUMBER: _ClassVar[int]
    version: int
    beside: int
    rows: int
    agreed: int
    unanswered: int
    dropped: int
    counted_at: _timestamp_pb2.Timestamp
    def __init__(self, version: _Optional[int] = ..., beside: _Optional[int] = ..., rows: _Optional[int] = ..., agreed: _Optional[int] = ..., unanswered: _Optional[int] = ..., dropped: _Optional[int] = ..., counted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Deployment(_message.Message):
    __slots__ = ("spec", "tenant", "state", "reason", "ready_replicas", "generation", "created_at", "updated_at", "serving_version", "rollout", "traffic", "leaving", "traffic_revision", "traffic_changed_at", "wanted_replicas", "rejected_generation", "rejected_reason", "serving_spec", "shadow", "agreement")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    READY_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    SERVING_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_REVISION_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    WANTED_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    REJECTED_REASON_FIELD_NUMBER: _ClassVar[int]
    SERVING_SPEC_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    spec: DeploymentSpec
    tenant: str
    state: DeploymentState
    reason: str
    ready_replicas: int
    generation: int
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    serving_version: int
    rollout: Rollout
    traffic: _containers.RepeatedCompositeFieldContainer[TrafficShare]
    leaving: _containers.RepeatedScalarFieldContainer[str]
    traffic_revision: int
    traffic_changed_at: _timestamp_pb2.Timestamp
    wanted_replicas: int
    rejected_generation: int
    rejected_reason: str
    serving_spec: DeploymentSpec
    shadow: Shadow
    agreement: Agreement
    def __init__(self, spec: _Optional[_Union[DeploymentSpec, _Mapping]] = ..., tenant: _Optional[str] = ..., state: _Optional[_Union[DeploymentState, str]] = ..., reason: _Optional[str] = ..., ready_replicas: _Optional[int] = ..., generation: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., serving_version: _Optional[int] = ..., rollout: _Optional[_Union[Rollout, _Mapping]] = ..., traffic: _Optional[_Iterable[_Union[TrafficShare, _Mapping]]] = ..., leaving: _Optional[_Iterable[str]] = ..., traffic_revision: _Optional[int] = ..., traffic_changed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., wanted_replicas: _Optional[int] = ..., rejected_generation: _Optional[int] = ..., rejected_reason: _Optional[str] = ..., serving_spec: _Optional[_Union[DeploymentSpec, _Mapping]] = ..., shadow: _Optional[_Union[Shadow, _Mapping]] = ..., agreement: _Optional[_Union[Agreement, _Mapping]] = ...) -> None: ...
