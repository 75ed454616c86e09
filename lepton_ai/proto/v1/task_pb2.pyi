import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lepton_ai.proto.v1 import deployment_pb2 as _deployment_pb2
from lepton_ai.proto.v1 import job_pb2 as _job_pb2
from lepton_ai.proto.v1 import node_pb2 as _node_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_STATE_UNSPECIFIED: _ClassVar[TaskState]
    TASK_STATE_STARTING: _ClassVar[TaskState]
    TASK_STATE_RUNNING: _ClassVar[TaskState]
    TASK_STATE_TRAINED: _ClassVar[TaskState]
    TASK_STATE_SUCCEEDED: _ClassVar[TaskState]
    TASK_STATE_FAILED: _ClassVar[TaskState]
    TASK_STATE_STALLED: _ClassVar[TaskState]
TASK_STATE_UNSPECIFIED: TaskState
TASK_STATE_STARTING: TaskState
TASK_STATE_RUNNING: TaskState
TASK_STATE_TRAINED: TaskState
TASK_STATE_SUCCEEDED: TaskState
TASK_STATE_FAILED: TaskState
TASK_STATE_STALLED: TaskState

class TrainerTask(_message.Message):
    __slots__ = ("job_id", "rank", "spec", "lighthouse_task_id", "publish", "min_ranks")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    LIGHTHOUSE_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    MIN_RANKS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    rank: int
    spec: _job_pb2.TrainSpec
    lighthouse_task_id: str
    publish: bool
    min_ranks: int
    def __init__(self, job_id: _Optional[str] = ..., rank: _Optional[int] = ..., spec: _Optional[_Union[_job_pb2.TrainSpec, _Mapping]] = ..., lighthouse_task_id: _Optional[str] = ..., publish: _Optional[bool] = ..., min_ranks: _Optional[int] = ...) -> None: ...

class ScriptTask(_message.Message):
    __slots__ = ("job_id", "rank", "world_size", "local_rank", "local_world_size", "group_rank", "group_world_size", "spec", "store_task_id", "restarts")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_RANK_FIELD_NUMBER: _ClassVar[int]
    LOCAL_WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    GROUP_RANK_FIELD_NUMBER: _ClassVar[int]
    GROUP_WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STORE_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    group_rank: int
    group_world_size: int
    spec: _job_pb2.ScriptSpec
    store_task_id: str
    restarts: int
    def __init__(self, job_id: _Optional[str] = ..., rank: _Optional[int] = ..., world_size: _Optional[int] = ..., local_rank: _Optional[int] = ..., local_world_size: _Optional[int] = ..., group_rank: _Optional[int] = ..., group_world_size: _Optional[int] = ..., spec: _Optional[_Union[_job_pb2.ScriptSpec, _Mapping]] = ..., store_task_id: _Optional[str] = ..., restarts: _Optional[int] = ...) -> None: ...

class ScoreTask(_message.Message):
    __slots__ = ("job_id", "rank", "spec", "publish")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    rank: int
    spec: _job_pb2.ScoreSpec
    publish: bool
    def __init__(self, job_id: _Optional[str] = ..., rank: _Optional[int] = ..., spec: _Optional[_Union[_job_pb2.ScoreSpec, _Mapping]] = ..., publish: _Optional[bool] = ...) -> None: ...

class Shard(_message.Message):
    __slots__ = ("task_id", "node_id", "node_incarnation", "attempt", "placed_revision", "result_object")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PLACED_REVISION_FIELD_NUMBER: _ClassVar[int]
    RESULT_OBJECT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    node_id: str
    node_incarnation: str
    attempt: int
    placed_revision: int
    result_object: str
    def __init__(self, task_id: _Optional[str] = ..., node_id: _Optional[str] = ..., node_incarnation: _Optional[str] = ..., attempt: _Optional[int] = ..., placed_revision: _Optional[int] = ..., result_object: _Optional[str] = ...) -> None: ...

class LighthouseTask(_message.Message):
    __slots__ = ("job_id", "min_ranks")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    MIN_RANKS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    min_ranks: int
    def __init__(self, job_id: _Optional[str] = ..., min_ranks: _Optional[int] = ...) -> None: ...

class ReplicaStep(_message.Message):
    __slots__ = ("object_id", "inputs")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    inputs: _containers.ScalarMap[str, str]
    def __init__(self, object_id: _Optional[str] = ..., inputs: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ReplicaTask(_message.Message):
    __slots__ = ("deployment", "model", "version", "object_id", "options", "steps")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    model: str
    version: int
    object_id: str
    options: _deployment_pb2.ServingOptions
    steps: _containers.RepeatedCompositeFieldContainer[ReplicaStep]
    def __init__(self, deployment: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., object_id: _Optional[str] = ..., options: _Optional[_Union[_deployment_pb2.ServingOptions, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[ReplicaStep, _Mapping]]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "node_id", "node_incarnation", "attempt", "fencing_token", "resources", "placed_at", "placed_revision", "failures", "losses", "trainer", "lighthouse", "replica", "script", "score")
    ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    PLACED_AT_FIELD_NUMBER: _ClassVar[int]
    PLACED_REVISION_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    TRAINER_FIELD_NUMBER: _ClassVar[int]
    LIGHTHOUSE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    SCRIPT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    id: str
    node_id: str
    node_incarnation: str
    attempt: int
    fencing_token: int
    resources: _node_pb2.Resources
    placed_at: _timestamp_pb2.Timestamp
    placed_revision: int
    failures: int
    losses: int
    trainer: TrainerTask
    lighthouse: LighthouseTask
    replica: ReplicaTask
    script: ScriptTask
    score: ScoreTask
    def __init__(self, id: _Optional[str] = ..., node_id: _Optional[str] = ..., node_incarnation: _Optional[str] = ..., attempt: _Optional[int] = ..., fencing_token: _Optional[int] = ..., resources: _Optional[_Union[_node_pb2.Resources, _Mapping]] = ..., placed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., placed_revision: _Optional[int] = ..., failures: _Optional[int] = ..., losses: _Optional[int] = ..., trainer: _Optional[_Union[TrainerTask, _Mapping]] = ..., lighthouse: _Optional[_Union[LighthouseTask, _Mapping]] = ..., replica: _Optional[_Union[ReplicaTask, _Mapping]] = ..., script: _Optional[_Union[ScriptTask, _Mapping]] = ..., score: _Optional[_Union[ScoreTask, _Mapping]] = ...) -> None: ...

class TaskStatus(_message.Message):
    __slots__ = ("task_id", "node_id", "attempt", "state", "reason", "user_error", "address", "result", "updated_at", "replica")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    USER_ERROR_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    node_id: str
    attempt: int
    state: TaskState
    reason: str
    user_error: bool
    address: str
    result: _job_pb2.JobResult
    updated_at: _timestamp_pb2.Timestamp
    replica: ReplicaTask
    def __init__(self, task_id: _Optional[str] = ..., node_id: _Optional[str] = ..., attempt: _Optional[int] = ..., state: _Optional[_Union[TaskState, str]] = ..., reason: _Optional[str] = ..., user_error: _Optional[bool] = ..., address: _Optional[str] = ..., result: _Optional[_Union[_job_pb2.JobResult, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., replica: _Optional[_Union[ReplicaTask, _Mapping]] = ...) -> None: ...
