from __future__ import annotations

import pytest

from lepton_ai.errors import NotFoundError, UnavailableError, UnimplementedError
from lepton_gateway.protocol import answer_call, model_names, repository_index, why_not
from lepton_gateway.table import Replica, RoutedDeployment, RouteTable
from lepton_runtime.oip import grpc_service_pb2 as pb

TABLE = RouteTable(
    (
        RoutedDeployment("asleep", "FAILED", "the model cannot be loaded"),
        RoutedDeployment("mnist", "READY", "", (Replica("a:1", 2), Replica("b:1", 2))),
    )
)
ENTRIES = [
    {
        "name": "asleep",
        "version": "",
        "state": "UNAVAILABLE",
        "reason": "the model cannot be loaded",
    },
    {"name": "mnist", "version": "2", "state": "READY", "reason": ""},
]


def test_only_models_that_answer_are_listed() -> None:
    assert model_names(TABLE) == ["mnist"]


def test_the_index_tells_why_a_model_does_not_answer() -> None:
    assert repository_index(TABLE) == ENTRIES


def test_an_unknown_model_is_answered_with_the_nearest_and_all_names() -> None:
    error = why_not(TABLE, "mnits")
    assert isinstance(error, NotFoundError)
    assert str(error) == (
        "model 'mnits' is not deployed: did you mean 'mnist'? deployed are asleep, mnist"
    )
    assert "nothing is deployed" in str(why_not(RouteTable(), "mnist"))


def test_a_deployment_without_replicas_tells_its_reason() -> None:
    error = why_not(TABLE, "asleep")
    assert isinstance(error, UnavailableError)
    assert "the model cannot be loaded" in str(error)


def test_calls_that_a_cluster_does_not_offer() -> None:
    with pytest.raises(UnimplementedError, match="deployment"):
        answer_call("RepositoryModelLoad", "mnist", TABLE, "1")
    with pytest.raises(NotFoundError, match="mnits"):
        answer_call("ModelInfer", "mnits", TABLE, "1")


def test_answers_are_messages_of_the_protocol() -> None:
    metadata = pb.ServerMetadataResponse.FromString(answer_call("ServerMetadata", "", TABLE, "1.2"))
    assert (metadata.name, metadata.version) == ("lepton", "1.2")
    assert "binary_tensor_data" in metadata.extensions
    index = pb.RepositoryIndexResponse.FromString(answer_call("RepositoryIndex", "", TABLE, "1"))
    assert [(model.name, model.state) for model in index.models] == [
        ("asleep", "UNAVAILABLE"),
        ("mnist", "READY"),
    ]
    ready = pb.ModelReadyResponse.FromString(answer_call("ModelReady", "mnits", TABLE, "1"))
    assert not ready.ready
