"""How a chunk's bytes lie in a file: as they are, or encrypted with the key of a tenant.

The first byte tells which. An encrypted file goes on with the tenant's name, padded with zero
bytes, a random nonce of 96 bits, and what AES-256 in Galois/Counter Mode makes of the chunk
(NIST SP 800-38D), bound to the chunk's hash: its tag comes last.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lepton_ai.errors import ConflictError

__all__ = ["Plain", "Sealer", "open_sealed", "seal"]

_PLAIN = b"\x00"
_SEALED = b"\x01"
_TENANT_BYTES = 64
_NONCE_BYTES = 12
_HEAD_BYTES = 1 + _TENANT_BYTES + _NONCE_BYTES

Bytes = bytes | memoryview


class Sealer(Protocol):
    """Turns chunks into contents of files and back."""

    async def ensure(self, tenant: str) -> None:
        """Be ready to seal for `tenant`."""
        ...

    async def follow(self) -> None:
        """Learn what other nodes seal with, until cancelled."""
        ...

    async def rewrap(self) -> int:
        """Wrap every tenant's key by the newest master key.

        Returns:
            How many keys there are.

        Raises:
            ConflictError: Nothing is encrypted here.
        """
        ...

    def seal(self, tenant: str, chunk_hash: bytes, data: Bytes) -> Sequence[Bytes]:
        """The content of a file, in parts."""
        ...

    def open(self, chunk_hash: bytes, content: bytes) -> memoryview | None:
        """The chunk in a file's content; None where the content is damaged."""
        ...


class Plain:
    """Chunks lie as they are."""

    async def ensure(self, tenant: str) -> None:
        """Nothing is needed."""

    async def follow(self) -> None:
        """There is nothing to learn."""

    async def rewrap(self) -> int:
        """There are no keys."""
        raise ConflictError(
            "chunks are not encrypted", hint="give storage nodes LEPTON_MASTER_KEY_FILE"
        )

    def seal(self, tenant: str, chunk_hash: bytes, data: Bytes) -> Sequence[Bytes]:
        """The content of a file, in parts."""
        return _PLAIN, data

    def open(self, chunk_hash: bytes, content: bytes) -> memoryview | None:
        """The chunk in a file's content; None where the content is damaged."""
        return open_sealed({}, chunk_hash, content)


def seal(cipher: AESGCM, tenant: str, chunk_hash: bytes, data: Bytes) -> Sequence[Bytes]:
    """The content of an encrypted file, in parts."""
    nonce = os.urandom(_NONCE_BYTES)
    name = tenant.encode().ljust(_TENANT_BYTES, b"\x00")
    return _SEALED + name + nonce, cipher.encrypt(nonce, data, chunk_hash)


def open_sealed(
    ciphers: Mapping[str, AESGCM], chunk_hash: bytes, content: bytes
) -> memoryview | None:
    """The chunk in a file's content, by the key of the tenant that the file names.

    Returns:
        None where the content is damaged or there is no such key.
    """
    if content[:1] == _PLAIN:
        return memoryview(content)[1:]
    tenant = content[1 : 1 + _TENANT_BYTES].rstrip(b"\x00").decode(errors="replace")
    if content[:1] != _SEALED or tenant not in ciphers:
        return None
    nonce = content[1 + _TENANT_BYTES : _HEAD_BYTES]
    try:
        sealed = memoryview(content)[_HEAD_BYTES:]
        return memoryview(ciphers[tenant].decrypt(nonce, sealed, chunk_hash))
    except (InvalidTag, ValueError):
        return None
