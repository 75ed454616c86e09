import json
import stat

import pytest

from lepton_ai.cluster.profile import Profile
from lepton_ai.errors import InvalidArgumentError, NotFoundError


def test_arguments_win_over_the_environment(tmp_path):
    environment = {"LEPTON_ADDRESS": "a:1", "LEPTON_API_KEY": "k", "LEPTON_HOME": str(tmp_path)}
    assert Profile.find("b:2", "l", environment) == Profile("b:2", "l")
    assert Profile.find(environment=environment) == Profile("a:1", "k")


def test_what_is_written_is_found_and_private(tmp_path):
    Profile("127.0.0.1:8080", "secret").write(tmp_path)
    found = Profile.find(environment={"LEPTON_HOME": str(tmp_path)})
    assert found == Profile("127.0.0.1:8080", "secret")
    assert stat.S_IMODE((tmp_path / "client.json").stat().st_mode) == 0o600


def test_a_stored_key_is_never_sent_to_another_address(tmp_path):
    Profile("127.0.0.1:8080", "secret").write(tmp_path)
    with pytest.raises(NotFoundError, match="LEPTON_API_KEY"):
        Profile.find("elsewhere:1", environment={"LEPTON_HOME": str(tmp_path)})


def test_no_cluster_says_what_to_do(tmp_path):
    with pytest.raises(NotFoundError, match="lepton up"):
        Profile.find(environment={"LEPTON_HOME": str(tmp_path)})


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"address": 5, "api_key": ""})])
def test_a_damaged_file_is_told(tmp_path, text):
    (tmp_path / "client.json").write_text(text)
    with pytest.raises(InvalidArgumentError, match="not a client file"):
        Profile.read(tmp_path)


@pytest.mark.parametrize("address", ["host", ":80", "host:", "host:x", "host:0", "host:65536"])
def test_an_address_is_host_and_port(address):
    with pytest.raises(InvalidArgumentError, match="host:port"):
        Profile.find(address, "key", {})
