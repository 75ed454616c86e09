from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lepton_runtime.settings import RuntimeSettings


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEPTON_NODE_ID", "worker-1")
    monkeypatch.setenv("LEPTON_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LEPTON_KEYS_DIR", str(tmp_path / "keys"))


def test_the_environment_fills_the_settings(monkeypatch):
    monkeypatch.setenv("LEPTON_ETCD_ENDPOINTS", '["127.0.0.1:1", "127.0.0.1:2"]')
    monkeypatch.setenv("LEPTON_LABELS", '{"zone": "a"}')
    settings = RuntimeSettings()
    assert settings.node_id == "worker-1"
    assert settings.etcd_endpoints == ("127.0.0.1:1", "127.0.0.1:2")
    assert settings.labels == {"zone": "a"}
    assert settings.host == "127.0.0.1"
    assert settings.tls is None


def test_the_environment_wins_over_the_file(monkeypatch, tmp_path):
    file = tmp_path / "lepton.toml"
    file.write_text('node_id = "from-file"\nport = 7000\n')
    monkeypatch.setenv("LEPTON_CONFIG", str(file))
    settings = RuntimeSettings()
    assert (settings.node_id, settings.port) == ("worker-1", 7000)


def test_settings_do_not_change():
    settings = RuntimeSettings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_open_to_the_network_needs_tls(monkeypatch, tmp_path):
    monkeypatch.setenv("LEPTON_HOST", "0.0.0.0")
    with pytest.raises(ValidationError, match="without TLS"):
        RuntimeSettings()
    for name in ("CERTIFICATE", "KEY", "AUTHORITY"):
        monkeypatch.setenv(f"LEPTON_TLS_{name}", str(tmp_path / name))
    settings = RuntimeSettings()
    assert settings.tls is not None
    assert settings.reachable_host == "worker-1"


def test_half_of_tls_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("LEPTON_TLS_AUTHORITY", str(tmp_path / "ca"))
    with pytest.raises(ValidationError, match="go together"):
        RuntimeSettings()
