from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from lepton_ai.errors import NotFoundError, UnavailableError, UnimplementedError
from lepton_gateway.protocol import answer_call, model_names, repository_index, why_not
from lepton_gateway.table import Replica, RoutedDeployment, RouteTable

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


def message_type(*names: str, repeated: str = "") -> type:
    """A message whose fields 1, 2, … are texts."""
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", syntax="proto3")
    message = file.message_type.add(name="Test")
    for number, name in enumerate(names, 1):
        field = message.field.add(name=name, number=number, type=9, label=1)
        if name == repeated:
            field.label = 3
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Test"))


def test_metadata_is_a_message_of_the_protocol() -> None:
    kind = message_type("name", "version", "extensions", repeated="extensions")
    message = kind.FromString(answer_call("ServerMetadata", "", TABLE, "1.2"))
    assert (message.name, message.version) == ("lepton", "1.2")
    assert list(message.extensions) == ["binary_tensor_data"]


def test_long_texts_have_long_lengths() -> None:
    table = RouteTable((RoutedDeployment("m", "FAILED", "x" * 300),))
    answer = answer_call("RepositoryIndex", "", table, "1")
    # Field 1, a length of two bytes, then the entry.
    entry = message_type("name", "version", "state", "reason").FromString(answer[3:])
    assert (entry.name, entry.reason) == ("m", "x" * 300)
