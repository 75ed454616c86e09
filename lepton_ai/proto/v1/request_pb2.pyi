import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueuedRequest(_message.Message):
    __slots__ = ("id", "tenant", "key_id", "model", "path", "webhook_url", "digest", "submitted_at", "content")
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_URL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    tenant: str
    key_id: str
    model: str
    path: str
    webhook_url: str
    digest: bytes
    submitted_at: _timestamp_pb2.Timestamp
    content: HttpContent
    def __init__(self, id: _Optional[str] = ..., tenant: _Optional[str] = ..., key_id: _Optional[str] = ..., model: _Optional[str] = ..., path: _Optional[str] = ..., webhook_url: _Optional[str] = ..., digest: _Optional[bytes] = ..., submitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., content: _Optional[_Union[HttpContent, _Mapping]] = ...) -> None: ...

class HttpContent(_message.Message):
    __slots__ = ("body", "content_type", "content_encoding", "json_length")
    BODY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_ENCODING_FIELD_NUMBER: _ClassVar[int]
    JSON_LENGTH_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    content_type: str
    content_encoding: str
    json_length: str
    def __init__(self, body: _Optional[bytes] = ..., content_type: _Optional[str] = ..., content_encoding: _Optional[str] = ..., json_length: _Optional[str] = ...) -> None: ...

class QueuedAnswer(_message.Message):
    __slots__ = ("request", "finished_at", "status", "content")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    request: QueuedRequest
    finished_at: _timestamp_pb2.Timestamp
    status: int
    content: HttpContent
    def __init__(self, request: _Optional[_Union[QueuedRequest, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., status: _Optional[int] = ..., content: _Optional[_Union[HttpContent, _Mapping]] = ...) -> None: ...
