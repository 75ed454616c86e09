from lepton_ai.proto.v1 import node_pb2 as _node_pb2
from lepton_ai.proto.v1 import options_pb2 as _options_pb2
from lepton_ai.proto.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeWorkerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeWorkerResponse(_message.Message):
    __slots__ = ("node", "tasks", "warm_trainers")
    NODE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    WARM_TRAINERS_FIELD_NUMBER: _ClassVar[int]
    node: _node_pb2.Node
    tasks: _containers.RepeatedCompositeFieldContainer[RunningTask]
    warm_trainers: int
    def __init__(self, node: _Optional[_Union[_node_pb2.Node, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[RunningTask, _Mapping]]] = ..., warm_trainers: _Optional[int] = ...) -> None: ...

class RunningTask(_message.Message):
    __slots__ = ("task", "status", "pid")
    TASK_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    task: _task_pb2.Task
    status: _task_pb2.TaskStatus
    pid: int
    def __init__(self, task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., status: _Optional[_Union[_task_pb2.TaskStatus, _Mapping]] = ..., pid: _Optional[int] = ...) -> None: ...
