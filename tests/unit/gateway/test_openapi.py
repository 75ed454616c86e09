from __future__ import annotations

from typing import Any

import pytest

from lepton_gateway.openapi import openapi_document


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document("1.2.3")


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set[str]()
        return own.union(*(references(one) for one in value.values()))
    if isinstance(value, list):
        return set[str]().union(*(references(one) for one in value))
    return set()


def test_every_reference_has_a_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    found = references(document)
    assert "#/components/schemas/Job" in found
    assert {name.rpartition("/")[2] for name in found} <= schemas.keys()


def test_a_call_is_described(document: dict[str, Any]) -> None:
    submit = document["paths"]["/v1/jobs"]["post"]
    assert submit["operationId"] == "SubmitJob"
    assert "developer" in submit["description"]
    body = submit["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/SubmitJobRequest"}


def test_paths_and_queries_are_parameters(document: dict[str, Any]) -> None:
    get = document["paths"]["/v1/models/{name}"]["get"]
    places = {one["name"]: (one["in"], one["required"]) for one in get["parameters"]}
    assert places == {"name": ("path", True), "version": ("query", False)}
    put = document["paths"]["/v1/deployments/{name}"]["put"]
    assert [one["name"] for one in put["parameters"]] == ["name"]
    body = put["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/DeploymentSpec"}


def test_fields_have_the_types_of_protobufs_json(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    job, dataset = schemas["Job"]["properties"], schemas["Split"]["properties"]
    assert job["created_at"] == {"type": "string", "format": "date-time"}
    assert "JOB_STATE_RUNNING" in job["state"]["enum"]
    assert job["attempt"] == {"type": "string", "format": "int64"}
    assert dataset["columns"]["type"] == "array"
    metrics = schemas["Model"]["properties"]["metrics"]
    assert metrics["additionalProperties"] == {"type": "number", "format": "double"}


def test_inference_is_described_too(document: dict[str, Any]) -> None:
    assert "post" in document["paths"]["/v2/models/{model}/infer"]
    result = document["paths"]["/v2/requests/{id}/result"]["get"]
    assert [one["name"] for one in result["parameters"]] == ["id"]
