from datetime import UTC, datetime

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from lepton_ai.cli.arguments import parse_options, parse_size
from lepton_ai.cli.commands import app
from lepton_ai.cli.declaration import model_of, read_model_file
from lepton_ai.cli.output import age_text, size_text
from lepton_ai.cluster.serving import ensemble_step, serving_options
from lepton_ai.errors import (
    InvalidArgumentError,
    NotFoundError,
)
from lepton_ai.oip.messages import decode_infer_answer, encode_infer_request
from lepton_ai.oip.tensor import Tensor

FORM = {"kind": "Sequential", "input_shape": [4], "layers": [["dense", {"units": 1}]]}


COMMANDS: list[list[str]] = [
    *([], ["up"], ["submit"], ["sweep"], ["jobs"], ["job", "cancel"], ["job", "output"], ["logs"]),
    *(["evaluate"], ["batch-predict"], ["datasets", "download"]),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5s"), (65, "1m"), (7300, "2h"), (200_000, "2d"), (-3, "0s")]
)
def test_ages(seconds, text):
    now = datetime.fromtimestamp(1_000_000, UTC)
    assert age_text(Timestamp(seconds=1_000_000 - seconds), now) == text


def test_sizes():
    assert [size_text(n) for n in (5, 2048, 3 * 1024**3)] == ["5 B", "2.0 KiB", "3.0 GiB"]
    assert [parse_size(text) for text in ("0", "5 B", "2.5KiB", "3 GiB")] == [
        0,
        5,
        2560,
        3 * 1024**3,
    ]
    for text in ("", "-1", "1 KB", "x", "1e9", "infMiB"):
        with pytest.raises(InvalidArgumentError):
            parse_size(text)


def test_models_are_declared_in_json_toml_and_python(tmp_path):
    declared = tmp_path / "model.toml"
    declared.write_text('input_shape = [4]\nloss = "mse"\nlayers = [["dense", {units = 1}]]')
    assert read_model_file(declared).config.output_shape == (1,)
    code = tmp_path / "model.py"
    code.write_text(f"from lepton_ai.cli.declaration import model_of\nmodel = model_of({FORM!r})")
    assert read_model_file(code).config.input_shape == (4,)
    assert model_of(read_model_file(declared).to_config()).config.output_shape == (1,)


@pytest.mark.parametrize("form", [[], {}, {"layers": []}, {**FORM, "kind": "GAN"}])
def test_what_declares_no_model_is_told(form):
    with pytest.raises(InvalidArgumentError):
        model_of(form)


def test_a_missing_model_file_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="no file"):
        read_model_file(tmp_path / "none.json")


def test_messages_are_those_of_the_protocol():
    # Read with the generated code, in a pool of its own by way of the wire only.
    tensor = Tensor("input", "UINT8", np.arange(200, dtype=np.uint8).reshape(1, 200))
    request = encode_infer_request("mnist", tensor)
    assert request.startswith(b"\n\x05mnist")
    assert tensor.array.tobytes() in request
    output = b"\x0a\x01y" + b"\x12\x04FP32" + b"\x1a\x02\x01\x02"
    raw = np.array([1, 2], "<f4").tobytes()
    answer = decode_infer_answer(b"\n\x01m" + b"\x2a\x0d" + output + b"\x32\x08" + raw)
    assert (answer.name, answer.array.tolist()) == ("y", [[1.0, 2.0]])
    for bad in (b"", b"\x32\x05ab", b"\n\x01m\x32\x08" + raw):
        with pytest.raises(InvalidArgumentError):
            decode_infer_answer(bad)


def test_serving_options_are_checked_before_anything_is_sent() -> None:
    options = serving_options(parse_options(["max_batch_size=0", "preferred_batch_sizes=8"]))
    assert options.HasField("max_batch_size")
    assert list(options.preferred_batch_sizes) == [8]
    with pytest.raises(InvalidArgumentError, match="there are max_batch_size"):
        serving_options({"speed": 1})
    with pytest.raises(InvalidArgumentError, match="max_batch_size is"):
        serving_options({"max_batch_size": 1 << 40})
    with pytest.raises(InvalidArgumentError, match="'cache_bytes' is no option"):
        parse_options(["cache_bytes"])
    assert ensemble_step("tokens:3").version == 3
