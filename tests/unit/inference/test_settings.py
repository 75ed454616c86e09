"""The command line, and what it refuses."""

from __future__ import annotations

import pytest

from lepton_ai.errors import InvalidArgumentError
from lepton_worker.inference.options import ServingOptions
from lepton_worker.inference.settings import parse

TLS = ("--tls-certificate", "c", "--tls-key", "k", "--tls-client-authority", "a")


def test_models_and_address() -> None:
    settings = parse(["m=/a/b=c.onnx", "n:3=x", "/a/plain.onnx", "--http", "[::1]:80"])
    assert [(str(m.steps[0].path), m.name, m.version) for m in settings.models] == [
        ("/a/b=c.onnx", "m", "1"),
        ("x", "n", "3"),
        ("/a/plain.onnx", "plain", "1"),
    ]
    assert (settings.host, settings.port) == ("::1", 80)


@pytest.mark.parametrize("extra", [TLS, ("--insecure-bind",)])
def test_an_open_address_needs_tls_or_a_word(extra: tuple[str, ...]) -> None:
    for host in ("0.0.0.0", "10.0.0.1", "node-1"):
        with pytest.raises(InvalidArgumentError, match="other machines"):
            parse(["--http", f"{host}:80"])
        assert parse(["--http", f"{host}:80", *extra]).host == host


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--http", "host"], "no port"),
        (["--http", "1:99999"], "no port"),
        (["../m=x"], "'../m' is not allowed"),
        (["m:0=x"], "'0' is not allowed"),
        (list(TLS[:2]), "three files"),
    ],
)
def test_what_has_no_sense_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse(arguments)
    assert words in str(caught.value)


def test_options_are_of_all_models_or_of_one() -> None:
    settings = parse(
        [
            *("a.b=x", "c=y", "--max-batch-size=8", "--model-memory-mib=3"),
            *("--set", "a.b.max_queue_delay_us=500", "--set", "a.b.preferred_batch_sizes=2,4"),
            *("--set", "c.preferred_batch_sizes=8"),
        ]
    )
    first, second = (model.options for model in settings.models)
    assert first == ServingOptions(8, (2, 4), 500)
    assert second == ServingOptions(8, (8,))
    assert settings.model_memory_bytes == 3 << 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("max_batch_size=3", "MODEL.OPTION=VALUE"),
        ("m.max_batch_size", "MODEL.OPTION=VALUE"),
        ("m.speed=3", "there are max_batch_size"),
        ("m.max_batch_size=many", "no number"),
        ("m.max_batch_size=-1", "from 0 to"),
        ("m.preferred_batch_sizes=2,0", "no numbers of rows"),
        ("n.max_batch_size=3", "there are m"),
    ],
)
def test_options_without_sense_are_refused(change: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse(["m=x", "--set", change])
    assert words in f"{caught.value}"


def test_models_and_options_come_in_any_order() -> None:
    settings = parse(["a=x", "--http", "81", "b=y", "--threads=2", "c=z"])
    assert [model.name for model in settings.models] == ["a", "b", "c"]
