"""Calls for the services behind the gateway."""

from __future__ import annotations

import json

import grpc
import pytest
from gateway_cluster import (
    TIMEOUT_S,
    Cluster,
)

from lepton_ai.proto.v1 import (
    scheduler_pb2,
    scheduler_pb2_grpc,
)


def test_management_over_grpc(cluster: Cluster) -> None:
    path = "/lepton_ai.proto.v1.SchedulerService"
    request = scheduler_pb2.GetJobRequest(id="j-1")
    answer = cluster.call(f"{path}/GetJob", request, scheduler_pb2.GetJobResponse)
    assert answer.job.id == "j-1"
    assert cluster.schedulers.authorization.startswith("Bearer ")
    with pytest.raises(grpc.RpcError) as missing:
        request = scheduler_pb2.GetJobRequest(id="missing")
        cluster.call(f"{path}/GetJob", request, scheduler_pb2.GetJobResponse)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert missing.value.details() == "job 'missing' does not exist"
    metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
    with cluster.channel() as channel:
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        watched = stub.WatchJob(
            scheduler_pb2.WatchJobRequest(id="j"), timeout=TIMEOUT_S, metadata=metadata
        )
        assert [event.job.attempt for event in watched] == [1, 2]


def test_management_over_rest(cluster: Cluster) -> None:
    answer = cluster.request("GET", "/v1/jobs/j-1")
    assert (answer.status, answer.json["job"]["id"]) == (200, "j-1")
    # The names of the protos, and fields that have their default.
    assert answer.json["job"]["idempotency_key"] == ""
    missing = cluster.request("GET", "/v1/jobs/missing")
    assert (missing.status, missing.json["error"]) == (404, "job 'missing' does not exist")
    lines = cluster.request("GET", "/v1/jobs/j/logs").body.splitlines()
    assert [json.loads(line)["line"]["text"] for line in lines] == ["line 1", "line 2"]


def test_errors_of_management_over_rest(cluster: Cluster) -> None:
    unknown = cluster.request("GET", "/v1/jbos")
    assert (unknown.status, "/v1/jbos" in unknown.json["error"]) == (404, True)
    malformed = cluster.request("POST", "/v1/jobs", {"spec": {"priority": "high"}})
    assert (malformed.status, "high" in malformed.json["error"]) == (400, True)
    nobody = cluster.request("GET", "/v1/datasets")
    assert (nobody.status, "error" in nobody.json) == (503, True)
