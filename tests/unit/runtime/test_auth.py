from __future__ import annotations

import stat
import time
from pathlib import Path

import jwt
import pytest

from lepton_ai.errors import UnauthenticatedError
from lepton_ai.proto.v1 import options_pb2
from lepton_runtime.auth import TokenSigner, TokenVerifier, make_keys

NOW = time.time()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auth") / "keys"
    make_keys(folder, NOW)
    return folder


@pytest.fixture(scope="module")
def signer(folder: Path) -> TokenSigner:
    return TokenSigner((folder / "signing.pem").read_bytes())


@pytest.fixture(scope="module")
def verifier(folder: Path) -> TokenVerifier:
    return TokenVerifier((folder / "jwks.json").read_text())


def test_a_key_names_its_holder(signer, verifier):
    minted = signer.mint("acme", options_pb2.ROLE_VIEWER, 60, NOW)
    principal = verifier.verify(minted.token)
    assert (principal.tenant, principal.role) == ("acme", options_pb2.ROLE_VIEWER)
    assert principal.key_id == minted.id
    assert minted.expires_at == int(NOW) + 60


def test_the_first_keys_are_one_of_the_services_and_one_of_a_person(folder, verifier):
    service = verifier.verify((folder / "service.token").read_text())
    admin = verifier.verify((folder / "admin.token").read_text())
    assert service.role == options_pb2.ROLE_SERVICE
    assert admin.role == options_pb2.ROLE_ADMIN


def test_only_their_owner_reads_keys(folder):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes) == {"signing.pem", "jwks.json", "service.token", "admin.token"}
    assert set(modes.values()) == {0o600}


def test_keys_that_are_there_stay(folder):
    before = (folder / "signing.pem").read_bytes()
    make_keys(folder, NOW)
    assert (folder / "signing.pem").read_bytes() == before


def test_an_expired_key_is_refused(signer, verifier):
    minted = signer.mint("acme", options_pb2.ROLE_ADMIN, 60, NOW - 3600)
    with pytest.raises(UnauthenticatedError, match="expired"):
        verifier.verify(minted.token)


def test_a_key_of_another_cluster_is_refused(verifier, tmp_path):
    make_keys(tmp_path / "other", NOW)
    with pytest.raises(UnauthenticatedError):
        verifier.verify((tmp_path / "other" / "admin.token").read_text())


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ä" * 10])
def test_what_is_no_key_is_refused(verifier, token):
    with pytest.raises(UnauthenticatedError):
        verifier.verify(token)


@pytest.mark.parametrize("missing", ["exp", "sub", "role", "jti", "aud", "iss"])
def test_a_key_that_lacks_a_claim_is_refused(folder, verifier, missing):
    claims = {
        "iss": "lepton",
        "aud": "lepton",
        "sub": "acme",
        "role": 4,
        "jti": "k",
        "exp": int(NOW) + 60,
    }
    del claims[missing]
    key = (folder / "signing.pem").read_bytes()
    header = jwt.get_unverified_header((folder / "admin.token").read_text())
    token = jwt.encode(claims, key, "EdDSA", {"kid": header["kid"]})
    with pytest.raises(UnauthenticatedError):
        verifier.verify(token)


def test_a_key_without_a_signature_is_refused(folder, verifier):
    header = jwt.get_unverified_header((folder / "admin.token").read_text())
    claims = {"iss": "lepton", "aud": "lepton", "sub": "a", "role": 5, "jti": "k"}
    token = jwt.encode({**claims, "exp": int(NOW) + 60}, None, "none", {"kid": header["kid"]})
    with pytest.raises(UnauthenticatedError):
        verifier.verify(token)
