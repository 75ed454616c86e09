"""The description of the REST interface, made from the descriptors that also route it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from google.api import annotations_pb2, http_pb2
from google.protobuf import timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from lepton_ai.proto.v1 import gateway_pb2, options_pb2, scheduler_pb2, storage_pb2

__all__ = ["openapi_document"]

_SERVICES = (
    scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"],
    storage_pb2.DESCRIPTOR.services_by_name["StorageService"],
    gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"],
)
_SCALARS: Mapping[int, dict[str, str]] = {
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "int64"},
    # JSON numbers are exact to 53 bits only, so protobuf's JSON writes these as text.
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
}
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_INFERENCE_PATHS: tuple[tuple[str, str, str], ...] = (
    ("/v2", "get", "Describes the server."),
    ("/v2/health/live", "get", "Whether the gateway runs. Needs no key."),
    ("/v2/health/ready", "get", "Whether the gateway takes requests. Needs no key."),
    ("/v2/models", "get", "Names of the models that answer."),
    ("/v2/models/{model}", "get", "Inputs and outputs of a model."),
    ("/v2/models/{model}/ready", "get", "Whether a model answers."),
    ("/v2/models/{model}/infer", "post", "Runs a model (Open Inference Protocol v2)."),
    (
        "/v2/models/{model}/infer-async",
        "post",
        "Puts a request into the queue: headers Idempotency-Key and Lepton-Webhook are heeded.",
    ),
    ("/v2/requests/{id}", "get", "How a queued request stands."),
    ("/v2/requests/{id}/result", "get", "The answer; waits for it for `wait_s` seconds (query)."),
    ("/v2/requests/{id}/events", "get", "What becomes of it, as server-sent events."),
    ("/v2/requests/webhook-secret", "get", "What the tenant's webhooks are signed with."),
    ("/v2/repository/index", "post", "Deployed models, their versions and states."),
)


def openapi_document(version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of every REST call.

    Args:
        version: Of this software.
    """
    paths: dict[str, dict[str, Any]] = {}
    messages: dict[str, Descriptor] = {}
    for method in _methods():
        verb, path, body = _binding(method)
        paths.setdefault(_plain(path), {})[verb] = _operation(method, path, body)
        _collect(method.input_type, messages)
        _collect(method.output_type, messages)
    for path, verb, summary in _INFERENCE_PATHS:
        paths[path] = {verb: _inference_operation(path, summary)}
    schemas = {found.name: _message_schema(found) for _, found in sorted(messages.items())}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lepton", "version": version},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {**schemas, "Error": _ERROR},
        },
    }


def _methods() -> Iterator[MethodDescriptor]:
    for service in _SERVICES:
        for method in service.methods:
            if _option(method, annotations_pb2.http).WhichOneof("pattern"):
                yield method


def _option(method: MethodDescriptor, extension: FieldDescriptor) -> Any:
    # The stubs take descriptors of extensions for something else than they are.
    return method.GetOptions().Extensions[cast("Any", extension)]


def _binding(method: MethodDescriptor) -> tuple[str, str, str]:
    """The verb, path and body of a call."""
    rule: http_pb2.HttpRule = _option(method, annotations_pb2.http)
    verb = rule.WhichOneof("pattern") or "get"
    return verb, getattr(rule, verb), rule.body


def _plain(path: str) -> str:
    return path.replace("{spec.name}", "{name}")


def _operation(method: MethodDescriptor, path: str, body: str) -> dict[str, Any]:
    role = _option(method, options_pb2.required_role)
    role_name = options_pb2.Role.Name(role).removeprefix("ROLE_").lower()
    operation: dict[str, Any] = {
        "operationId": method.name,
        "tags": [method.containing_service.name],
        "description": f"Needs a key of role {role_name} or above.",
        "parameters": _parameters(method, path, body),
        "responses": _responses(_reference(method.output_type)),
    }
    if body:
        operation["requestBody"] = _json_content(_body_schema(method, body))
    return operation


def _parameters(method: MethodDescriptor, path: str, body: str) -> list[dict[str, Any]]:
    in_path = re.findall(r"{([a-z_.]+)}", path)
    parameters = [_parameter(name.split(".")[-1], {"type": "string"}, "path") for name in in_path]
    if not body:
        parameters += [
            _parameter(field.name, _field_schema(field), "query")
            for field in method.input_type.fields
            if field.name not in in_path
        ]
    return parameters


def _parameter(name: str, schema: dict[str, Any], place: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _body_schema(method: MethodDescriptor, body: str) -> dict[str, Any]:
    if body == "*":
        return _reference(method.input_type)
    return _field_schema(method.input_type.fields_by_name[body])


def _inference_operation(path: str, summary: str) -> dict[str, Any]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters = [_parameter(name, {"type": "string"}, "path") for name in names]
    return {
        "tags": ["Inference"],
        "description": summary,
        "parameters": parameters,
        "responses": _responses({"type": "object"}),
    }


def _responses(schema: dict[str, Any]) -> dict[str, Any]:
    failed = {"$ref": "#/components/schemas/Error"}
    return {
        "200": {"description": "Done.", **_json_content(schema)},
        "default": {"description": "What was wrong.", **_json_content(failed)},
    }


def _json_content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _collect(message: Descriptor, found: dict[str, Descriptor]) -> None:
    """Add a message and all it refers to."""
    if message.full_name in found or message.full_name == _timestamp().full_name:
        return
    if not message.GetOptions().map_entry:
        found[message.full_name] = message
    for field in message.fields:
        if field.message_type is not None:
            _collect(field.message_type, found)


def _message_schema(message: Descriptor) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in message.fields},
    }


def _field_schema(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _field_schema(value)}
    schema = _single_schema(field)
    return {"type": "array", "items": schema} if field.is_repeated else schema


def _single_schema(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None:
        return _reference(field.message_type)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "format": "byte"}
    return dict(_SCALARS.get(field.cpp_type, {"type": "string"}))


def _reference(message: Descriptor) -> dict[str, Any]:
    if message.full_name == _timestamp().full_name:
        return {"type": "string", "format": "date-time"}
    return {"$ref": f"#/components/schemas/{message.name}"}


def _timestamp() -> Descriptor:
    return timestamp_pb2.Timestamp.DESCRIPTOR
