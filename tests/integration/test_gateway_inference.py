"""Whatever clients of the Open Inference Protocol ask of the gateway."""

from __future__ import annotations

import gzip
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import numpy as np
import pytest
from gateway_cluster import (
    INFER,
    LIMITS,
    TIMEOUT_S,
    Cluster,
    Replica,
    eventually,
    grpc_input,
    rest_input,
)
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lepton_runtime import keys
from lepton_runtime.oip import grpc_service_pb2 as pb
from lepton_runtime.state import Remove

TRITON_CALLS = Path(__file__).parent / "tritonclient" / "calls.py"
KSERVE_CALLS = Path(__file__).parent / "kserve" / "calls.py"


def test_inference_over_rest_and_grpc(cluster: Cluster) -> None:
    answer = cluster.infer("scale", [1.0, 2.0])
    assert answer.json["outputs"][0]["data"] == [2.0, 4.0]
    assert cluster.request("GET", "/v2/models/scale/versions/1/ready").status == 200
    message = cluster.call(INFER, grpc_input("scale", [3.0]), pb.ModelInferResponse)
    assert message.model_name == "scale"
    assert message.outputs[0].shape == [1, 1]


def test_a_large_request_passes_and_a_larger_one_does_not(cluster: Cluster) -> None:
    values = [1.0] * 500_000  # 2.5 MB of JSON, 2 MB of message.
    assert cluster.infer("scale", values).status == 200
    cluster.call(INFER, grpc_input("scale", values), pb.ModelInferResponse)
    # Refused for what it says it will send, before it does.
    length = str(LIMITS.max_request_bytes + 1)
    refused = cluster.request("POST", "/v2/models/scale/infer", content_length=length)
    assert (refused.status, "too large" in refused.json["error"]) == (413, True)
    with pytest.raises(grpc.RpcError) as too_large:
        cluster.call(INFER, grpc_input("scale", values * 3), pb.ModelInferResponse)
    assert too_large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert too_large.value.details() == refused.json["error"]


def test_unknown_models_are_named(cluster: Cluster) -> None:
    answer = cluster.infer("scael", [1.0])
    assert answer.status == 404
    assert "'scael'" in answer.json["error"]
    assert "did you mean 'scale'?" in answer.json["error"]
    with pytest.raises(grpc.RpcError) as missing:
        cluster.call(INFER, grpc_input("scael", [1.0]), pb.ModelInferResponse)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert "did you mean 'scale'?" in missing.value.details()


def test_bad_input_says_the_same_over_rest_and_grpc(cluster: Cluster) -> None:
    document = rest_input([1.0])
    document["inputs"][0]["name"] = "z"
    answer = cluster.request("POST", "/v2/models/scale/infer", document)
    message = grpc_input("scale", [1.0])
    message.inputs[0].name = "z"
    with pytest.raises(grpc.RpcError) as wrong:
        cluster.call(INFER, message, pb.ModelInferResponse)
    assert answer.status == 400
    assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert wrong.value.details() == answer.json["error"]


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_rest_answers_are_compressed_on_request(cluster: Cluster, size: int) -> None:
    values = [float(number) for number in range(size)]
    plain = cluster.infer("scale", values)
    packed = cluster.request(
        "POST", "/v2/models/scale/infer", rest_input(values), Accept_Encoding="gzip"
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < 0.6 * len(plain.body)
    assert gzip.decompress(packed.body) == plain.body


def test_compressed_messages_are_answered(cluster: Cluster) -> None:
    metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
    with cluster.channel() as channel:
        infer = channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
        for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            answer = infer(
                grpc_input("scale", [1.0] * 100).SerializeToString(),
                timeout=TIMEOUT_S,
                metadata=metadata,
                compression=algorithm,
            )
            assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [2.0] * 100
        with pytest.raises(grpc.RpcError) as unknown:
            infer(
                grpc_input("scael", [1.0]).SerializeToString(),
                timeout=TIMEOUT_S,
                metadata=metadata,
                compression=grpc.Compression.Gzip,
            )
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        assert "did you mean 'scale'" in unknown.value.details()


def test_what_compressed_messages_hold_is_limited(cluster: Cluster) -> None:
    metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
    with cluster.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(INFER)(
            bytes(2 * LIMITS.max_request_bytes),
            timeout=TIMEOUT_S,
            metadata=metadata,
            compression=grpc.Compression.Gzip,
        )
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def _stream(cluster: Cluster, requests: Iterator[pb.ModelInferRequest], **claims: Any) -> Any:
    metadata = (("authorization", f"Bearer {cluster.keys.token(**claims)}"),)
    with cluster.channel() as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        yield from call(requests, timeout=TIMEOUT_S, metadata=metadata)


def test_a_stream_is_answered_in_order_although_a_replica_dies(
    cluster: Cluster, model: Path
) -> None:
    with ExitStack() as stack:
        replicas = [Replica(stack, model, "flow") for _ in range(2)]
        cluster.deploy("flow", *(replica.address for replica in replicas))
        eventually(lambda: cluster.infer("flow", [1.0]).status == 200)

        def requests() -> Iterator[pb.ModelInferRequest]:
            for number in range(300):
                if number == 100:
                    replicas[0].kill()
                request = grpc_input("flow" if number != 150 else "flew", [float(number)])
                request.id = str(number)
                yield request

        answers = list(_stream(cluster, requests()))
        cluster.remove("flow", 0, 1)
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(300)]
    assert "did you mean 'flow'" in answers.pop(150).error_message
    for answer in answers:
        assert not answer.error_message
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        [value] = np.frombuffer(answer.infer_response.raw_output_contents[0], "<f4")
        assert value == 2 * int(answer.infer_response.id)


def test_a_stream_needs_a_key_for_each_of_its_requests(cluster: Cluster) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        next(_stream(cluster, iter([grpc_input("scale", [1.0])]), exp=int(time.time()) - 60))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

    def requests() -> Iterator[pb.ModelInferRequest]:
        yield grpc_input("scale", [1.0])
        assert first_came.wait(TIMEOUT_S)
        cluster.revoke("streaming")
        token = cluster.keys.token(jti="streaming")
        eventually(lambda: cluster.request("GET", "/v2", token=token).status == 403)
        yield grpc_input("scale", [1.0])

    first_came = Event()
    stream = _stream(cluster, requests(), jti="streaming")
    assert not next(stream).error_message
    first_came.set()
    assert next(stream).error_message


def test_reflection_describes_what_is_offered(cluster: Cluster) -> None:
    metadata = (("authorization", f"Bearer {cluster.keys.token()}"),)
    with cluster.channel() as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="inference.GRPCInferenceService"
            ),
        ]
        services, file = call(iter(asked), timeout=TIMEOUT_S, metadata=metadata)
    names = {service.name for service in services.list_services_response.service}
    assert {"inference.GRPCInferenceService", "lepton_ai.proto.v1.SchedulerService"} <= names
    [content] = file.file_descriptor_response.file_descriptor_proto
    described = descriptor_pb2.FileDescriptorProto.FromString(content)
    assert "ModelInferRequest" in {message.name for message in described.message_type}


def test_unmodified_clients_of_others(
    cluster: Cluster, triton_python: Path, kserve_python: Path, triton_models: dict[str, Path]
) -> None:
    with ExitStack() as stack:
        replica = Replica(stack, triton_models["tens:1"], "tens")
        replica.load("tens", "2", triton_models["tens:2"])
        replica.load("echo", "1", triton_models["echo:1"])
        cluster.split("tens", replica.address, 1, v1=0, v2=100)
        cluster.deploy("echo", replica.address)
        eventually(lambda: cluster.infer("tens", [1.0] * 4).status == 200)
        eventually(lambda: cluster.request("GET", "/v2/models/echo").status == 200)
        address = f"127.0.0.1:{cluster.port}"
        token = cluster.keys.token()
        triton = [str(triton_python), str(TRITON_CALLS), address, address, token]
        kserve = [str(kserve_python), str(KSERVE_CALLS), address, address, "kserve", token]
        done = [
            subprocess.run(calls, check=False, timeout=TIMEOUT_S).returncode
            for calls in (triton, kserve)
        ]
        cluster.commit(Remove(keys.deployment("tens")))
        cluster.remove("echo", 0)
    assert done == [0, 0]


def test_the_server_describes_itself(cluster: Cluster) -> None:
    service = "/inference.GRPCInferenceService"
    assert cluster.request("GET", "/v2").json["name"] == "lepton"
    assert "scale" in cluster.request("GET", "/v2/models").json["models"]
    index = cluster.request("POST", "/v2/repository/index").json
    assert {"name": "scale", "version": "1", "state": "READY", "reason": ""} in index
    live = cluster.call(f"{service}/ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
    assert live.live
    about = cluster.call(
        f"{service}/ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse
    )
    assert (about.name, about.version) == ("lepton", "0.1.0")
    models = cluster.call(
        f"{service}/RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse
    ).models
    assert ("scale", "1", "READY") in {(one.name, one.version, one.state) for one in models}
    ready = cluster.call(
        f"{service}/ModelReady", pb.ModelReadyRequest(name="scale"), pb.ModelReadyResponse
    )
    assert ready.ready
    health = cluster.call(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest(),
        health_pb2.HealthCheckResponse,
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    paths = cluster.request("GET", "/openapi.json", token=None).json["paths"]
    assert "post" in paths["/v1/jobs"]
    assert b"openapi.json" in cluster.request("GET", "/docs", token=None).body
