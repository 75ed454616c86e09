"""Deployments whose versions and replicas come, go, hang and die behind the gateway."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import numpy as np
import pytest
from gateway_cluster import (
    INFER,
    TIMEOUT_S,
    Cluster,
    Replica,
    eventually,
    free_port,
    grpc_input,
    replica_records,
    rest_input,
)

from lepton_ai.proto.v1 import (
    deployment_pb2,
    serving_pb2,
)
from lepton_runtime import keys
from lepton_runtime.http import JSON_TYPE, Exchange
from lepton_runtime.oip import grpc_service_pb2 as pb
from lepton_runtime.state import Remove, Write


def test_versions_share_requests_as_told_and_are_reported(cluster: Cluster, model: Path) -> None:
    def asked(path: str = "/v2/models/split/infer") -> str:
        return cluster.request("POST", path, rest_input([1.0])).json["model_version"]

    def called(version: str = "") -> str:
        request = grpc_input("split", [1.0])
        request.model_version = version
        return cluster.call(INFER, request, pb.ModelInferResponse).model_version

    def reported() -> dict[int, list[serving_pb2.VersionLoad]]:
        """What was reported of each version since its share was changed last."""
        found: dict[int, list[serving_pb2.VersionLoad]] = {1: [], 2: []}
        for report in cluster.reports:
            for load in report.deployments:
                if load.name == "split" and load.traffic_revision == 7:
                    for version in load.versions:
                        found[version.version].append(version)
        return found

    with ExitStack() as stack:
        replica = Replica(stack, model, "split")
        replica.load("split", "2", model)
        cluster.split("split", replica.address, 6, v1=100, v2=0)
        eventually(lambda: cluster.infer("split", [1.0]).status == 200)
        assert {asked() for _ in range(20)} == {"1"}
        cluster.split("split", replica.address, 7, v1=50, v2=50)
        eventually(lambda: any(reported()[2]))
        answers = [asked() for _ in range(60)] + [called() for _ in range(20)]
        assert 15 < answers.count("1") < 65
        for version in ("1", "2"):
            assert asked(f"/v2/models/split/versions/{version}/infer") == version
            assert called(version) == version
        missing = cluster.request("POST", "/v2/models/split/versions/3/infer", rest_input([1.0]))
        assert missing.status == 404
        with pytest.raises(grpc.RpcError) as uncalled:
            called("3")
        assert uncalled.value.code() is grpc.StatusCode.NOT_FOUND
        eventually(lambda: sum(v.requests for both in reported().values() for v in both) >= 86)
        eventually(lambda: sum(v.errors for both in reported().values() for v in both) == 2)
        assert {v.healthy for both in reported().values() for v in both} == {1}
        cluster.split("split", replica.address, 8, v2=100)
        eventually(
            lambda: any(
                load.name == "split" and load.traffic_revision == 8
                for load in cluster.reports[-1].deployments
            )
        )
        assert {asked() for _ in range(20)} == {"2"}
        cluster.commit(Remove(keys.deployment("split")))


def test_calls_are_mirrored_and_their_answers_compared(cluster: Cluster, model: Path) -> None:
    deployment = deployment_pb2.Deployment(traffic_revision=1)
    deployment.spec.name = "shaded"
    deployment.traffic.add(version=1, percent=100)
    deployment.shadow.MergeFrom(
        deployment_pb2.Shadow(version=2, beside=1, percent=100, tolerance=0.01)
    )

    def tallied() -> tuple[int, int]:
        loads = [
            load
            for report in cluster.reports
            for one in report.deployments
            if one.name == "shaded"
            for load in one.versions
        ]
        return sum(one.compared_rows for one in loads), sum(one.agreed_rows for one in loads)

    with ExitStack() as stack:
        replica = Replica(stack, model, "shaded")
        replica.load("shaded", "2", model)
        cluster.commit(
            *replica_records("shaded", "shaded-v1-0", replica.address),
            *replica_records("shaded", "shaded-v2-0", replica.address, 2),
            Write(keys.deployment("shaded"), deployment.SerializeToString()),
        )
        eventually(lambda: cluster.healthy("shaded") == 2)
        for number in range(3):
            asked = grpc_input("shaded", [float(number)])
            assert cluster.call(INFER, asked, pb.ModelInferResponse).model_version == "1"
        eventually(lambda: tallied() == (3, 3))
        assert cluster.infer("shaded", [1.0]).status == 200
        eventually(lambda: tallied() == (4, 4))
        cluster.commit(Remove(keys.deployment("shaded")))


def test_requests_wait_for_a_sleeping_model(cluster: Cluster, model: Path) -> None:
    asleep = deployment_pb2.Deployment(traffic_revision=1)
    asleep.spec.name = "dozy"
    asleep.spec.scale.max_replicas = 1
    asleep.traffic.add(version=1, percent=100)

    def ask(number: int) -> Any:
        if number % 2:
            return cluster.infer("dozy", [float(number)]).json["outputs"][0]["data"]
        answer = cluster.call(INFER, grpc_input("dozy", [float(number)]), pb.ModelInferResponse)
        return np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()

    def waiting() -> int:
        loads = [one for one in cluster.reports[-1].deployments if one.name == "dozy"]
        return loads[0].waiting if loads else 0

    with ExitStack() as stack:
        replica = Replica(stack, model, "dozy")
        cluster.commit(Write(keys.deployment("dozy"), asleep.SerializeToString()))
        ready = "/v2/models/dozy/ready"
        eventually(lambda: cluster.request("GET", ready).status == 200)
        assert "dozy" in cluster.request("GET", "/v2/models").json["models"]
        with ThreadPoolExecutor(6) as threads:
            answers = threads.map(ask, range(6))
            eventually(lambda: waiting() == 6)
            cluster.commit(*replica_records("dozy", "dozy-v1-0", replica.address))
            assert list(answers) == [[2.0 * number] for number in range(6)]
        eventually(lambda: waiting() == 0)
        cluster.commit(Remove(keys.deployment("dozy")))


def test_a_deployment_without_replicas_says_so(cluster: Cluster) -> None:
    cluster.deploy("empty")
    eventually(lambda: cluster.infer("empty", [1.0]).status == 503)
    assert "no replica" in cluster.infer("empty", [1.0]).json["error"]
    with pytest.raises(grpc.RpcError) as nobody:
        cluster.call(INFER, grpc_input("empty", [1.0]), pb.ModelInferResponse)
    assert nobody.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "no replica" in nobody.value.details()


def test_a_dead_replica_is_an_unavailable_one(cluster: Cluster) -> None:
    cluster.deploy("dead", f"127.0.0.1:{free_port()}")
    eventually(lambda: "reachable" in cluster.infer("dead", [1.0]).body.decode())
    assert cluster.infer("dead", [1.0]).status == 503
    with pytest.raises(grpc.RpcError) as nobody:
        cluster.call(INFER, grpc_input("dead", [1.0]), pb.ModelInferResponse)
    assert nobody.value.code() is grpc.StatusCode.UNAVAILABLE
    assert nobody.value.details() == cluster.infer("dead", [1.0]).json["error"]


def test_a_new_deployment_answers_within_a_second(cluster: Cluster, model: Path) -> None:
    with ExitStack() as stack:
        replica = Replica(stack, model, "fresh")
        cluster.deploy("fresh", replica.address)
        eventually(lambda: cluster.infer("fresh", [1.0]).status == 200, timeout_s=1.0)
        cluster.remove("fresh", 0)
        eventually(lambda: cluster.infer("fresh", [1.0]).status == 503)


def test_no_request_fails_when_a_replica_is_killed(cluster: Cluster, model: Path) -> None:
    with ExitStack() as stack:
        replicas = [Replica(stack, model, "busy") for _ in range(2)]
        cluster.deploy("busy", *(replica.address for replica in replicas))
        eventually(lambda: cluster.infer("busy", [1.0]).status == 200)
        stop, statuses = Event(), list[int]()

        def send_rest() -> None:
            connection = cluster.connection()
            headers = {"authorization": f"Bearer {cluster.keys.token()}"}
            body = json.dumps(rest_input([1.0]))
            while not stop.is_set():
                connection.request("POST", "/v2/models/busy/infer", body, headers)
                response = connection.getresponse()
                response.read()
                statuses.append(response.status)
            connection.close()

        def send_grpc() -> None:
            metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
            message = grpc_input("busy", [1.0]).SerializeToString()
            with cluster.channel() as channel:
                call = channel.unary_unary(INFER)
                while not stop.is_set():
                    call(message, timeout=TIMEOUT_S, metadata=metadata)
                    statuses.append(200)

        with ThreadPoolExecutor(8) as pool:
            senders = [pool.submit(send) for send in [send_rest, send_grpc] * 4]
            try:
                eventually(lambda: len(statuses) > 200)
                replicas[0].kill()
                killed = len(statuses)
                eventually(lambda: len(statuses) > killed + 2000)
            finally:
                stop.set()
            for sender in senders:
                sender.result(TIMEOUT_S)
    assert set(statuses) == {200}


def test_what_one_replica_refuses_another_answers(cluster: Cluster, model: Path) -> None:
    refused = list[str]()

    def refuse(exchange: Exchange) -> None:
        if exchange.path.endswith("/ready"):
            exchange.reply(200, JSON_TYPE, b"{}")
            return
        refused.append(exchange.path)
        assert b"authorization" not in exchange.headers
        status = b"lepton-grpc-status: 14\r\nlepton-grpc-message: full\r\n"
        exchange.reply(503, JSON_TYPE + status, b'{"error": "full"}')

    with ExitStack() as stack:
        full = stack.enter_context(cluster.serving(refuse))
        cluster.deploy("half", Replica(stack, model, "half").address, full)
        eventually(lambda: cluster.healthy("half") == 2)
        # More than a connection's buffer: each is kept whole until it is answered.
        values = [1.0] * 400_000
        for path in ("/v2/models/half/infer", INFER):
            while refused.count(path) < 3:
                assert cluster.infer("half", values).status == 200
                cluster.call(INFER, grpc_input("half", values), pb.ModelInferResponse)
        cluster.remove("half", 0, 1)


def test_who_does_not_read_an_answer_holds_up_nobody_else(cluster: Cluster) -> None:
    large = bytes(32 * 1024 * 1024)

    def answer(exchange: Exchange) -> None:
        exchange.reply(200, JSON_TYPE, large if exchange.body == b"large" else b"{}")

    with ExitStack() as stack:
        cluster.deploy("patient", stack.enter_context(cluster.serving(answer)))
        eventually(lambda: cluster.healthy("patient") == 1)
        headers = {"authorization": f"Bearer {cluster.keys.token()}"}
        for _ in range(4):
            stalled = stack.enter_context(closing(cluster.connection()))
            stalled.request("POST", "/v2/models/patient/infer", b"large", headers)
            stalled.getresponse()
        assert cluster.infer("patient", [1.0]).status == 200
        cluster.remove("patient", 0)


def test_a_slow_replica_is_hedged(cluster: Cluster, model: Path) -> None:
    with ExitStack() as stack:
        replicas = [Replica(stack, model, "hedged") for _ in range(2)]
        addresses = [replica.address for replica in replicas]
        cluster.deploy("hedged", *addresses, hedge_after_s=0.1)
        eventually(lambda: cluster.infer("hedged", [1.0]).status == 200)
        slow = replicas[0].child
        slow.send_signal(signal.SIGSTOP)
        try:
            waited = list[float]()
            for _ in range(10):
                began = time.monotonic()
                assert cluster.infer("hedged", [1.0]).status == 200
                waited.append(time.monotonic() - began)
                cluster.call(INFER, grpc_input("hedged", [1.0]), pb.ModelInferResponse)
        finally:
            slow.send_signal(signal.SIGCONT)
    assert 0.1 <= max(waited) < 1.0
