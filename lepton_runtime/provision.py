"""Make everything secret that a cluster needs, once.

    python -m lepton_runtime.provision /keys gateway.example.com:8080

Below the folder lies one folder a service, such as ``/keys/worker-1``, and ``authority``. Each
gets what its service may know, readable by the owner of the folder above only: certificates for
all, tokens for Lepton's own, the signing key for gateways, the key that chunks are encrypted with
for storage nodes. What is there already stays. The
second argument is how people reach the gateway; ``authority/client.json`` is a client's profile
for it, with the first administrator's key.
"""

from __future__ import annotations

import base64
import datetime
import os
import shutil
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lepton_ai.cluster.profile import Profile
from lepton_runtime.auth import make_keys
from lepton_runtime.certificates import Authority

__all__ = ["provision"]

_AUTHORITY = "authority"
# They check certificates; our tokens mean nothing to them.
_FOREIGN = ("etcd", "nats")
_TOKENS = ("jwks.json", "service.token")
_SIGNING = "signing.pem"
_MASTER = "master.key"


def provision(root: Path, gateway: str, now: datetime.datetime) -> None:
    """Fill every service's folder below `root`.

    Args:
        root: Has a folder for each service.
        gateway: ``host:port`` by which people reach the gateway.
        now: Start of validity (aware, UTC).
    """
    home = root / _AUTHORITY
    make_keys(home, now.timestamp())
    authority = _authority(home, now)
    _master_key(home / _MASTER)
    _profile(home, gateway).write(home)
    public = gateway.rpartition(":")[0]
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path != home):
        if not (folder / "tls.crt").exists():
            authority.issue(folder, _hosts(folder.name, public), now)
        for name in _secrets(folder.name):
            shutil.copy2(home / name, folder / name)
        _hand_over(folder, root.stat())


def _secrets(service: str) -> tuple[str, ...]:
    """Files of the authority that a service gets a copy of."""
    if service in _FOREIGN:
        return ()
    if service.startswith("storage"):
        return (*_TOKENS, _MASTER)
    return (*_TOKENS, _SIGNING) if _is_gateway(service) else _TOKENS


def _hosts(service: str, public: str) -> list[str]:
    hosts = [service, "localhost", "127.0.0.1"]
    return [*hosts, public] if _is_gateway(service) and public not in hosts else hosts


def _is_gateway(service: str) -> bool:
    return service.startswith("gateway")


def _profile(home: Path, gateway: str) -> Profile:
    key = (home / "admin.token").read_text().strip()
    return Profile(gateway, key, (home / "ca.crt").read_text())


def _authority(home: Path, now: datetime.datetime) -> Authority:
    certificate, key = home / "ca.crt", home / "ca.key"
    if certificate.exists():
        return _read_authority(certificate, key)
    authority = Authority.create(now)
    private = authority.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key.touch(mode=0o600)
    key.write_bytes(private)
    # Last: its presence says that the key is there.
    certificate.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    return authority


def _master_key(path: Path) -> None:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(base64.b64encode(os.urandom(32)).decode() + "\n")


def _read_authority(certificate: Path, key: Path) -> Authority:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return Authority(x509.load_pem_x509_certificate(certificate.read_bytes()), private)


def _hand_over(folder: Path, owner: os.stat_result) -> None:
    """Give a folder and its files to the user that services run as."""
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)


if __name__ == "__main__":
    provision(Path(sys.argv[1]), sys.argv[2], datetime.datetime.now(datetime.UTC))
