"""Keys are tokens that the cluster signs: checked without a call, and nothing secret is stored.

JSON Web Tokens (RFC 7519) signed with Ed25519 (RFC 8037).
"""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_ai.errors import LeptonError, PermissionDeniedError, UnauthenticatedError
from lepton_ai.proto.v1 import options_pb2

__all__ = ["MintedToken", "Principal", "TokenSigner", "TokenVerifier", "make_keys"]

ISSUER = "lepton"
_ALGORITHM = "EdDSA"
_KEY_ID = "lepton-1"
_LEEWAY_S = 300  # clocks of a cluster may be this far apart
SERVICE_TTL_S = 10 * 365 * 24 * 3600
_KNOWN_TOKENS = 1024
ADMIN_TTL_S = 365 * 24 * 3600


@dataclass(frozen=True)
class Principal:
    """Who calls: a tenant, with a role (`lepton_ai.proto.v1.Role`), by one key.

    Attributes:
        may_run_code: Whether programs of theirs may run on the workers.
    """

    tenant: str
    role: int
    key_id: str
    may_run_code: bool = False


@dataclass(frozen=True)
class MintedToken:
    """A new key, its id for revocation, and when it expires (seconds since the epoch)."""

    token: str
    id: str
    expires_at: int


class TokenSigner:
    """Signs keys. Only gateways have one.

    Args:
        private_key_pem: PKCS 8, PEM.
    """

    def __init__(self, private_key_pem: bytes) -> None:
        self._key = private_key_pem

    def mint(
        self, tenant: str, role: int, ttl_s: int, now: float, *, may_run_code: bool = False
    ) -> MintedToken:
        """A key for `tenant` with `role`, valid for `ttl_s` seconds from `now`.

        An administrator's may always run code.
        """
        identifier = uuid.uuid4().hex
        expires_at = int(now) + ttl_s
        claims = {
            "iss": ISSUER,
            "aud": ISSUER,
            "sub": tenant,
            "role": role,
            "code": may_run_code or role >= options_pb2.ROLE_ADMIN,
            "jti": identifier,
            "iat": int(now),
            "exp": expires_at,
        }
        token = jwt.encode(claims, self._key, _ALGORITHM, {"kid": _KEY_ID})
        return MintedToken(token, identifier, expires_at)


class TokenVerifier:
    """Checks keys against the cluster's public keys.

    Args:
        jwks: A JSON Web Key Set (RFC 7517) as JSON.
    """

    def __init__(self, jwks: str) -> None:
        self._keys = {key.key_id: key.key for key in jwt.PyJWKSet.from_json(jwks).keys}
        self._known: dict[str, tuple[Principal, float]] = {}

    def verify(self, token: str) -> Principal:
        """Who holds `token`. One that was checked before costs no signature until it expires.

        Raises:
            UnauthenticatedError: It is not a valid key of this cluster.
        """
        known = self._known.get(token)
        if known is not None and time.time() < known[1]:
            return known[0]
        principal, expires_at = self._checked(token)
        if len(self._known) >= _KNOWN_TOKENS:
            self._known.clear()
        self._known[token] = principal, expires_at
        return principal

    def admit(self, authorization: str, role: int) -> Principal:
        """Who makes a request, if they may.

        Args:
            authorization: The header of that name.
            role: The least role that may.

        Raises:
            UnauthenticatedError: There is no valid key in it.
            PermissionDeniedError: The key's role is below that.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError(
                "a key is required", hint="send it as 'Authorization: Bearer KEY'"
            )
        caller = self.verify(token)
        if caller.role < role:
            needed = options_pb2.Role.Name(role).removeprefix("ROLE_").lower()  # pyright: ignore
            raise PermissionDeniedError(
                "the key does not allow this", hint=f"a key with role {needed} is needed"
            )
        return caller

    def _checked(self, token: str) -> tuple[Principal, float]:
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                [_ALGORITHM],
                {"require": ["exp"]},
                audience=ISSUER,
                issuer=ISSUER,
                leeway=_LEEWAY_S,
            )
            may_run_code = claims.get("code") is True
            holder = Principal(claims["sub"], int(claims["role"]), claims["jti"], may_run_code)
            return holder, float(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise UnauthenticatedError("the key has expired", hint="ask for a new one") from None
        except (jwt.InvalidTokenError, KeyError, ValueError):
            raise _unknown_key() from None


def make_keys(folder: Path, now: float) -> None:
    """Make a cluster's keys in `folder`, unless they are there.

    ``signing.pem`` signs (gateways only), ``jwks.json`` checks (everyone), ``service.token`` is
    the cluster's own key and ``admin.token`` the first person's. All readable by their owner only.
    """
    if (folder / "signing.pem").exists():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    signer = TokenSigner(pem)
    service = signer.mint("lepton", options_pb2.ROLE_SERVICE, SERVICE_TTL_S, now)
    admin = signer.mint("default", options_pb2.ROLE_ADMIN, ADMIN_TTL_S, now)
    _write_private(folder / "jwks.json", _jwks(key).encode())
    _write_private(folder / "service.token", service.token.encode())
    _write_private(folder / "admin.token", admin.token.encode())
    # Last: its presence says that the others are there.
    _write_private(folder / "signing.pem", pem)


def _unknown_key() -> LeptonError:
    return UnauthenticatedError(
        "the key is not valid here", hint="give a key of this cluster as 'Authorization: Bearer'"
    )


def _jwks(key: Ed25519PrivateKey) -> str:
    raw = key.public_key().public_bytes_raw()
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    public = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": _ALGORITHM, "kid": _KEY_ID}
    return json.dumps({"keys": [{**public, "x": x}]})


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
