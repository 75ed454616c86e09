"""Who may pass the gateway, how it is reached, and how it ends."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from gateway_cluster import (
    INFER,
    TIMEOUT_S,
    Cluster,
    Keys,
    Replica,
    eventually,
    grpc_input,
)

from lepton_ai.proto.v1 import (
    scheduler_pb2,
    scheduler_pb2_grpc,
)
from lepton_gateway.envoy.clusters import Tls
from lepton_runtime.certificates import Authority
from lepton_runtime.oip import grpc_service_pb2 as pb


def test_only_health_needs_no_key(cluster: Cluster) -> None:
    assert cluster.request("GET", "/v2/health/live", token=None).json == {"live": True}
    assert cluster.request("GET", "/v2/health/ready", token=None).json == {"ready": True}
    for path in ("/v2", "/v2/models", "/v2/models/scale", "/v1/jobs/j"):
        refused = cluster.request("GET", path, token=None)
        assert refused.status == 401
        assert "authorization: Bearer KEY" in refused.json["error"]


def test_bad_keys_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    bad = [
        cluster.keys.token(exp=int(time.time()) - 60),
        cluster.keys.token(iss="other"),
        cluster.keys.token(aud="other"),
        Keys(tmp_path).token(),
    ]
    statuses = [cluster.request("GET", "/v2", token=token).status for token in bad]
    assert statuses == [401, 401, 403, 401]
    no_role = cluster.request("GET", "/v2", token=cluster.keys.token(role=0))
    assert no_role.status == 403
    assert "error" in no_role.json


def test_a_revoked_key_is_refused(cluster: Cluster) -> None:
    token = cluster.keys.token(jti="stolen")
    assert cluster.request("GET", "/v2", token=token).status == 200
    cluster.revoke("stolen")
    eventually(lambda: cluster.request("GET", "/v2", token=token).status == 403)
    assert cluster.request("GET", "/v2").status == 200


def test_missing_key_over_grpc(cluster: Cluster) -> None:
    with cluster.channel() as channel:
        for path in (INFER, "/lepton_ai.proto.v1.SchedulerService/GetJob"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(path)(b"", timeout=TIMEOUT_S)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "authorization: Bearer KEY" in refused.value.details()


def test_mutual_tls_to_services_and_replicas(tmp_path: Path, model: Path) -> None:
    now = datetime.now(UTC)
    Authority.create(now).issue(tmp_path / "tls", ["127.0.0.1"], now)
    names = ("tls.crt", "tls.key", "ca.crt")
    tls = Tls(*(str(tmp_path / "tls" / name) for name in names))
    with ExitStack() as stack:
        replica = Replica(stack, model, "scale", tls=tls)
        cluster = stack.enter_context(Cluster(tmp_path, tls))
        cluster.deploy("scale", replica.address)
        eventually(lambda: cluster.infer("scale", [1.0]).status == 200)
        cluster.call(INFER, grpc_input("scale", [3.0]), pb.ModelInferResponse)
        answer = cluster.request("GET", "/v1/jobs/j-1")
        assert (answer.status, answer.json["job"]["id"]) == (200, "j-1")


def says_goodbye(cluster: Cluster) -> bool:
    try:
        answer = cluster.request("GET", "/v2/health/live", token=None)
    except ConnectionError:
        return True
    return answer.headers.get("connection") == "close"


def test_requests_in_progress_end_before_the_gateway_does(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster, cluster.channel() as channel:
        metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        request = scheduler_pb2.GetJobRequest(id="slow")
        slow = stub.GetJob.future(request, timeout=TIMEOUT_S, metadata=metadata)
        assert cluster.schedulers.asked_slow.wait(TIMEOUT_S)
        cluster.signal(cluster.stopping)
        eventually(lambda: says_goodbye(cluster))
        cluster.signal(cluster.schedulers.may_answer)
        assert slow.result(TIMEOUT_S).job.id == "slow"
