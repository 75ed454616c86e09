from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest

from lepton_runtime.certificates import Authority

NOW = datetime.datetime.now(datetime.UTC)


def _context(folder: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose, cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _handshake(server: Path, client: Path, name: str) -> None:
    """Both ends over a socket pair; raises what the client sees."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        context = _context(server, ssl.Purpose.CLIENT_AUTH)
        try:
            with context.wrap_socket(theirs, server_side=True) as tls:
                tls.sendall(b"ok")
        except ssl.SSLError:
            theirs.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        context = _context(client, ssl.Purpose.SERVER_AUTH)
        with context.wrap_socket(ours, server_hostname=name) as tls:
            assert tls.recv(2) == b"ok"
    finally:
        ours.close()
        thread.join()


def test_services_of_one_cluster_know_each_other(tmp_path: Path) -> None:
    authority = Authority.create(NOW)
    authority.issue(tmp_path / "a", ["worker-1", "127.0.0.1"], NOW)
    authority.issue(tmp_path / "b", ["gateway"], NOW)
    _handshake(tmp_path / "a", tmp_path / "b", "worker-1")
    _handshake(tmp_path / "a", tmp_path / "b", "127.0.0.1")


def test_a_service_is_not_taken_for_another(tmp_path: Path) -> None:
    authority = Authority.create(NOW)
    authority.issue(tmp_path / "a", ["worker-1"], NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="worker-2"):
        _handshake(tmp_path / "a", tmp_path / "a", "worker-2")


def test_another_cluster_is_a_stranger(tmp_path: Path) -> None:
    Authority.create(NOW).issue(tmp_path / "a", ["worker-1"], NOW)
    Authority.create(NOW).issue(tmp_path / "b", ["gateway"], NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(tmp_path / "a", tmp_path / "b", "worker-1")


def test_the_key_is_its_owners(tmp_path: Path) -> None:
    Authority.create(NOW).issue(tmp_path / "a", ["worker-1"], NOW)
    assert (tmp_path / "a" / "tls.key").stat().st_mode & 0o077 == 0
