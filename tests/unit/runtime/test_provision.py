from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509

from lepton_ai.cluster.profile import Profile
from lepton_ai.proto.v1 import options_pb2
from lepton_runtime.auth import TokenVerifier
from lepton_runtime.provision import provision

NOW = datetime.datetime.now(datetime.UTC)
TLS = {"tls.crt", "tls.key", "ca.crt"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("authority", "etcd", "worker-1", "gateway"):
        (tmp_path / name).mkdir()
    provision(tmp_path, "cluster.test:8080", NOW)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_service_gets_what_it_may_know(keys):
    assert names(keys / "etcd") == TLS
    assert names(keys / "worker-1") == TLS | {"jwks.json", "service.token"}
    assert names(keys / "gateway") == TLS | {"jwks.json", "service.token", "signing.pem"}


def test_people_get_a_profile_of_the_gateway(keys):
    profile = Profile.read(keys / "authority")
    assert profile.address == "cluster.test:8080"
    assert profile.authority == (keys / "authority/ca.crt").read_text()
    assert profile.channel_credentials
    assert profile.tls
    certificate = x509.load_pem_x509_certificate((keys / "gateway/tls.crt").read_bytes())
    hosts = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "cluster.test" in hosts.get_values_for_type(x509.DNSName)
    verifier = TokenVerifier((keys / "worker-1/jwks.json").read_text())
    assert verifier.verify(profile.api_key).role == options_pb2.ROLE_ADMIN


def test_what_is_secret_is_read_by_its_owner_only(keys):
    secret = [
        "authority/ca.key",
        "authority/client.json",
        "worker-1/tls.key",
        "worker-1/service.token",
    ]
    assert {stat.S_IMODE((keys / name).stat().st_mode) for name in secret} == {0o600}


def test_one_authority_signs_all_by_their_names(keys):
    authority = x509.load_pem_x509_certificate((keys / "authority/ca.crt").read_bytes())
    worker = x509.load_pem_x509_certificate((keys / "worker-1/tls.crt").read_bytes())
    worker.verify_directly_issued_by(authority)
    hosts = worker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["worker-1", "localhost"]


def test_a_second_start_changes_nothing_and_serves_newcomers(keys):
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    (keys / "worker-2").mkdir()
    provision(keys, "cluster.test:8080", NOW)
    assert {path: path.read_bytes() for path in before} == before
    verifier = TokenVerifier((keys / "worker-1/jwks.json").read_text())
    assert verifier.verify((keys / "worker-2/service.token").read_text())
