from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_gateway.envoy.bootstrap import Listening, bootstrap
from lepton_gateway.envoy.clusters import Tls
from lepton_gateway.envoy.documents import DocumentFolder, render
from lepton_gateway.envoy.limits import Limits
from lepton_gateway.table import Replica, RoutedDeployment, RouteTable, Shadow

BOTH = "deployment/mnist/1:90 deployment/mnist/2:10"
LIMITS = Limits(max_connections=10, max_requests=20, max_request_bytes=30, inference_timeout_s=4)
TLS = Tls("/tls.crt", "/tls.key", "/ca.crt")
TABLE = RouteTable(
    (
        RoutedDeployment("asleep", "PROGRESSING"),
        RoutedDeployment(
            "mnist",
            "PROGRESSING",
            "",
            (Replica("10.0.0.1:9", 1), Replica("10.0.0.1:9", 2), Replica("[::1]:9", 1)),
            ((1, 90), (2, 10)),
        ),
    ),
    ("10.0.0.2:9",),
    ("10.0.0.3:9",),
    ("10.0.0.3:8",),
    ("stolen",),
)


def rendered(table: RouteTable = TABLE, tls: Tls | None = None) -> dict[str, dict[str, Any]]:
    return render(table, "/folder", 7, LIMITS, tls)


def clusters(tls: Tls | None = None) -> dict[str, dict[str, Any]]:
    return {cluster["name"]: cluster for cluster in rendered(tls=tls)["cds.json"]["resources"]}


def actions(table: RouteTable = TABLE) -> list[dict[str, Any]]:
    """Of the routes that lead somewhere."""
    return [route["route"] for route in virtual_host(table)["routes"] if "route" in route]


def virtual_host(table: RouteTable = TABLE) -> dict[str, Any]:
    return rendered(table)["rds.json"]["resources"][0]["virtual_hosts"][0]


def target(path: str, **headers: str) -> str:
    """The cluster of the first route that matches, as Envoy would choose."""
    for route in virtual_host()["routes"]:
        match = route["match"]
        separated = match.get("path_separated_prefix")
        if separated and path != separated and not path.startswith(f"{separated}/"):
            continue
        pattern = match.get("safe_regex", {"regex": ".*"})["regex"]
        if not re.fullmatch(pattern, path):
            continue
        wanted = all(_fits(one, headers.get(one["name"])) for one in match.get("headers", ()))
        if match.get("path", path) == path and path.startswith(match.get("prefix", "/")) and wanted:
            return _answered_by(route)
    raise AssertionError(path)


def _answered_by(route: dict[str, Any]) -> str:
    """What a route leads to; the status where Envoy answers itself."""
    if "direct_response" in route:
        return str(route["direct_response"]["status"])
    return _cluster(route["route"])


def _cluster(action: dict[str, Any]) -> str:
    """The cluster of a route, or its clusters and their weights."""
    if "cluster" in action:
        return action["cluster"]
    shares = action["weighted_clusters"]["clusters"]
    for share in shares:
        [header] = share["request_headers_to_add"]
        assert header["header"]["key"] == "lepton-version"
        assert header["header"]["value"] == share["name"].rpartition("/")[2]
    return " ".join(f"{share['name']}:{share['weight']}" for share in shares)


def _fits(wanted: dict[str, Any], value: str | None) -> bool:
    if wanted.get("present_match"):
        return value is not None
    if span := wanted.get("range_match"):
        return value is not None and span["start"] <= int(value) < span["end"]
    text = wanted["string_match"]
    fits = value == text["exact"] if "exact" in text else (value or "").startswith(text["prefix"])
    return fits is not wanted.get("invert_match", False)


@pytest.mark.parametrize(
    ("path", "cluster"),
    [
        ("/v2/models/mnist", BOTH),
        ("/v2/models/mnist/infer", BOTH),
        ("/v2/models/mnist/versions/1/infer", "deployment/mnist/1:1"),
        ("/v2/models/mnist/versions/2", "deployment/mnist/2:1"),
        ("/v2/models/mnist/versions/3/infer", BOTH),
        ("/v2/models/mnist/infer-async", "app"),
        ("/v2/models/mnist/versions/3/infer-async", "app"),
        ("/v2/models/mnist:infer-async", "app"),
        ("/v2/requests/abc/events", "app"),
        ("/v2/models/mnist-2/infer", "app"),
        ("/v2/models/asleep/infer", "app"),
        ("/v2/models", "app"),
        ("/v1/jobs", "app"),
        ("/docs", "app"),
        ("/inference.GRPCInferenceService/ServerLive", "calls"),
        ("/grpc.health.v1.Health/Check", "calls"),
        ("/lepton_ai.proto.v1.SchedulerService/GetJob", "schedulers"),
        ("/lepton_ai.proto.v1.StorageService/StatObject", "storage"),
        ("/data/chunks/ab", "data"),
        ("/data/objects", "data"),
        ("/lepton_ai.proto.v1.GatewayService/GetStatus", "gateway"),
    ],
)
def test_routes(path: str, cluster: str) -> None:
    assert target(path) == cluster


def test_what_says_it_is_too_large_is_refused_at_once() -> None:
    call = "/v2/models/mnist/infer"
    assert target(call, **{"content-length": str(LIMITS.max_request_bytes)}) == BOTH
    assert target(call, **{"content-length": str(LIMITS.max_request_bytes + 1)}) == "413"


def test_keys_of_clients_go_no_further_than_they_are_needed() -> None:
    found = replace(TABLE.deployments[1], shadow=Shadow(2, 1, 7, 0.01))
    asleep = RoutedDeployment("dozy", "READY", sleeps=True)
    for route in virtual_host(replace(TABLE, deployments=(found, asleep)))["routes"]:
        action = route.get("route", {})
        told = "authorization" not in route.get("request_headers_to_remove", ())
        assert told is ("weighted_clusters" not in action or "request_mirror_policies" in action)


def test_grpc_is_routed_by_the_name_in_its_message() -> None:
    call = "/inference.GRPCInferenceService/ModelInfer"
    assert target(call, **{"lepton-model": "mnist/"}) == BOTH
    assert target(call, **{"lepton-model": "mnist/2"}) == "deployment/mnist/2:1"
    assert target(call, **{"lepton-model": "mnist/3"}) == BOTH
    assert target(call, **{"lepton-model": "mnist-2/"}) == "calls"
    assert target(call, **{"lepton-model": "asleep/"}) == "calls"


def test_streams_compressed_messages_and_reflection_are_relayed() -> None:
    call = "/inference.GRPCInferenceService/ModelInfer"
    model = {"lepton-model": "mnist/"}
    assert target(call, **model, **{"grpc-encoding": "gzip"}) == "relay"
    assert target(call, **model, **{"grpc-encoding": "identity"}) == BOTH
    assert target("/inference.GRPCInferenceService/ModelStreamInfer") == "relay"
    assert target("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo") == "relay"


def test_only_inference_is_sent_again_after_it_was_begun() -> None:
    policies = {
        _cluster(action): action.get("retry_policy", {}).get("retry_on", "") for action in actions()
    }
    assert "reset," in policies[BOTH]
    for cluster in ("schedulers", "storage", "gateway"):
        assert "reset" not in policies[cluster].split(",")
        assert "retriable-status-codes" not in policies[cluster]


def test_mirrored_is_what_is_to_be_compared_and_bounded() -> None:
    found = replace(TABLE.deployments[1], shadow=Shadow(2, 1, 7, 0.01))
    table = replace(TABLE, deployments=(found,))
    found_actions = {_cluster(action): action for action in actions(table)}
    mirrored = {
        name for name, action in found_actions.items() if "request_mirror_policies" in action
    }
    assert mirrored == {BOTH}
    [policy] = found_actions[BOTH]["request_mirror_policies"]
    assert policy["cluster"] == "shadow/mnist/2"
    assert policy["runtime_fraction"]["default_value"]["numerator"] == 7
    [shadow] = [c for c in rendered(table, TLS)["cds.json"]["resources"] if c["type"] == "STATIC"]
    assert shadow["circuit_breakers"]["thresholds"][0]["max_requests"] == 8
    assert "transport_socket" not in shadow
    assert not any("request_mirror_policies" in action for action in actions())


def test_nothing_is_mirrored_for_a_version_that_does_not_answer() -> None:
    found = replace(TABLE.deployments[1], shadow=Shadow(3, 1, 7, 0.01))
    table = replace(TABLE, deployments=(found,))
    assert not any("request_mirror_policies" in action for action in actions(table))


def test_documents_are_written_before_what_refers_to_them() -> None:
    names = list(rendered())
    assert names[-2:] == ["cds.json", "rds.json"]
    clusters = ("deployment.mnist.1", "deployment.mnist.2", "schedulers", "storage", "data")
    assert names[:-2] == [f"eds.{cluster}.json" for cluster in clusters]


def test_every_cluster_has_the_file_of_its_endpoints() -> None:
    documents = rendered()
    for cluster in documents["cds.json"]["resources"]:
        path = cluster["eds_cluster_config"]["eds_config"]["path_config_source"]["path"]
        [assignment] = documents[path.removeprefix("/folder/")]["resources"]
        assert assignment["cluster_name"] == cluster["name"]


def test_endpoints() -> None:
    [assignment] = rendered()["eds.deployment.mnist.1.json"]["resources"]
    members = assignment["endpoints"][0]["lb_endpoints"]
    addresses = [one["endpoint"]["address"]["socket_address"] for one in members]
    assert addresses == [
        {"address": "10.0.0.1", "port_value": 9},
        {"address": "::1", "port_value": 9},
    ]


def test_a_single_500_ejects_nobody() -> None:
    detection = clusters()["deployment/mnist/1"]["outlier_detection"]
    assert detection["enforcing_consecutive_5xx"] == 0
    assert detection["enforcing_consecutive_gateway_failure"] == 0
    assert detection["consecutive_local_origin_failure"] > 1


def test_tls_is_for_every_remote_cluster_or_none() -> None:
    assert all("transport_socket" not in cluster for cluster in clusters().values())
    for cluster in clusters(TLS).values():
        context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        assert context["validation_context"]["trusted_ca"]["filename"] == "/ca.crt"


def test_revoked_keys_are_refused_by_routes_alone() -> None:
    principals = json.dumps(virtual_host()["typed_per_filter_config"])
    assert '"stolen"' in principals
    assert '"stolen"' not in json.dumps(virtual_host(RouteTable())["typed_per_filter_config"])


def test_everything_but_health_and_the_description_needs_a_key() -> None:
    manager = _connection_manager()
    keys = next(one for one in manager["http_filters"] if one["name"] == "keys")
    rules = keys["typed_config"]["rules"]
    open_paths = {rule["match"]["path"] for rule in rules if "requires" not in rule}
    assert open_paths == {"/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"}
    assert rules[-1] == {"match": {"prefix": "/"}, "requires": {"provider_name": "lepton"}}


def test_keys_are_checked_before_anything_else() -> None:
    names = [one["name"] for one in _connection_manager()["http_filters"]]
    assert names[:2] == ["keys", "refused-keys"]
    assert names[-1] == "router"


def test_clients_get_tls_where_there_is_a_certificate() -> None:
    plain, secured = _bootstrap(None), _bootstrap(TLS)
    assert "transport_socket" not in plain["static_resources"]["listeners"][0]["filter_chains"][0]
    chain = secured["static_resources"]["listeners"][0]["filter_chains"][0]
    assert chain["transport_socket"]["name"] == "tls"


def _bootstrap(tls: Tls | None) -> dict[str, Any]:
    return bootstrap(
        Listening(
            host="127.0.0.1",
            port=1,
            app_port=2,
            calls_port=5,
            grpc_port=3,
            relay_port=4,
            relay_path="/relay",
            admin_path="/admin",
            folder="/folder",
            jwks_path="/jwks.json",
            descriptors="",
            limits=LIMITS,
            tls=tls,
        )
    )


def _connection_manager() -> dict[str, Any]:
    chain = _bootstrap(None)["static_resources"]["listeners"][0]["filter_chains"][0]
    return chain["filters"][0]["typed_config"]


def test_a_folder_holds_what_was_rendered_last(tmp_path: Path) -> None:
    folder = DocumentFolder(tmp_path)
    folder.write(rendered())
    before = (tmp_path / "eds.storage.json").stat().st_ino
    folder.write(rendered(RouteTable(storage_nodes=TABLE.storage_nodes)))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("eds.schedulers.json", "eds.storage.json", "eds.data.json"),
        *("cds.json", "rds.json"),
    }
    # What is the same is not written again, so Envoy does not read it again.
    assert (tmp_path / "eds.storage.json").stat().st_ino == before
