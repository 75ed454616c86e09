import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lepton_ai.proto.v1 import deployment_pb2 as _deployment_pb2
from lepton_ai.proto.v1 import job_pb2 as _job_pb2
from lepton_ai.proto.v1 import node_pb2 as _node_pb2
from lepton_ai.proto.v1 import storage_pb2 as _storage_pb2
from lepton_ai.proto.v1 import task_pb2 as _task_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Event(_message.Message):
    __slots__ = ("id", "at", "source", "node_joined", "node_lost", "job_submitted", "job_state_changed", "task_placed", "task_finished", "model_published", "dataset_created", "deployment_changed", "leader_elected", "alias_moved")
    ID_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NODE_JOINED_FIELD_NUMBER: _ClassVar[int]
    NODE_LOST_FIELD_NUMBER: _ClassVar[int]
    JOB_SUBMITTED_FIELD_NUMBER: _ClassVar[int]
    JOB_STATE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    TASK_PLACED_FIELD_NUMBER: _ClassVar[int]
    TASK_FINISHED_FIELD_NUMBER: _ClassVar[int]
    MODEL_PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    DATASET_CREATED_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_CHANGED_FIELD_NUMBER: _ClassVar[int]
    LEADER_ELECTED_FIELD_NUMBER: _ClassVar[int]
    ALIAS_MOVED_FIELD_NUMBER: _ClassVar[int]
    id: str
    at: _timestamp_pb2.Timestamp
    source: str
    node_joined: NodeJoined
    node_lost: NodeLost
    job_submitted: JobSubmitted
    job_state_changed: JobStateChanged
    task_placed: TaskPlaced
    task_finished: TaskFinished
    model_published: ModelPublished
    dataset_created: DatasetCreated
    deployment_changed: DeploymentChanged
    leader_elected: LeaderElected
    alias_moved: AliasMoved
    def __init__(self, id: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[str] = ..., node_joined: _Optional[_Union[NodeJoined, _Mapping]] = ..., node_lost: _Optional[_Union[NodeLost, _Mapping]] = ..., job_submitted: _Optional[_Union[JobSubmitted, _Mapping]] = ..., job_state_changed: _Optional[_Union[JobStateChanged, _Mapping]] = ..., task_placed: _Optional[_Union[TaskPlaced, _Mapping]] = ..., task_finished: _Optional[_Union[TaskFinished, _Mapping]] = ..., model_published: _Optional[_Union[ModelPublished, _Mapping]] = ..., dataset_created: _Optional[_Union[DatasetCreated, _Mapping]] = ..., deployment_changed: _Optional[_Union[DeploymentChanged, _Mapping]] = ..., leader_elected: _Optional[_Union[LeaderElected, _Mapping]] = ..., alias_moved: _Optional[_Union[AliasMoved, _Mapping]] = ...) -> None: ...

class NodeJoined(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: _node_pb2.Node
    def __init__(self, node: _Optional[_Union[_node_pb2.Node, _Mapping]] = ...) -> None: ...

class NodeLost(_message.Message):
    __slots__ = ("node_id", "incarnation")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    incarnation: str
    def __init__(self, node_id: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class JobSubmitted(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.Job
    def __init__(self, job: _Optional[_Union[_job_pb2.Job, _Mapping]] = ...) -> None: ...

class JobStateChanged(_message.Message):
    __slots__ = ("job", "previous")
    JOB_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.Job
    previous: _job_pb2.JobState
    def __init__(self, job: _Optional[_Union[_job_pb2.Job, _Mapping]] = ..., previous: _Optional[_Union[_job_pb2.JobState, str]] = ...) -> None: ...

class TaskPlaced(_message.Message):
    __slots__ = ("task", "reason")
    TASK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task: _task_pb2.Task
    reason: str
    def __init__(self, task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class TaskFinished(_message.Message):
    __slots__ = ("status", "reason")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    status: _task_pb2.TaskStatus
    reason: str
    def __init__(self, status: _Optional[_Union[_task_pb2.TaskStatus, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ModelPublished(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _storage_pb2.Model
    def __init__(self, model: _Optional[_Union[_storage_pb2.Model, _Mapping]] = ...) -> None: ...

class AliasMoved(_message.Message):
    __slots__ = ("alias", "previous")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    alias: _storage_pb2.Alias
    previous: int
    def __init__(self, alias: _Optional[_Union[_storage_pb2.Alias, _Mapping]] = ..., previous: _Optional[int] = ...) -> None: ...

class DatasetCreated(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: _storage_pb2.Dataset
    def __init__(self, dataset: _Optional[_Union[_storage_pb2.Dataset, _Mapping]] = ...) -> None: ...

class DeploymentChanged(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ...) -> None: ...

class LeaderElected(_message.Message):
    __slots__ = ("node_id", "fencing_token")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    fencing_token: int
    def __init__(self, node_id: _Optional[str] = ..., fencing_token: _Optional[int] = ...) -> None: ...
