"""The keys that chunks are encrypted with: one for each tenant, wrapped by a master key.

What is wrapped says by which master key, so that masters can be rotated: the newest wraps, older
ones only unwrap, and `Keyring.rewrap` moves every tenant's key to the newest without touching a
chunk. In the cluster's state lie wrapped keys only.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from typing import Protocol

import structlog
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lepton_ai.errors import ConflictError, InvalidArgumentError, LeptonError
from lepton_runtime import keys
from lepton_runtime.state import Absent, Delete, Put, Record, Snapshot, State, Unchanged, Write
from lepton_storage import sealing

__all__ = ["Keyring", "LocalMaster", "Master"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.keyring")
_KEY_BYTES = 32
_NONCE_BYTES = 12
_MASTER_ID_BYTES = 8
_TRIES = 10


class Master(Protocol):
    """What a key management service does: it wraps keys and never shows its own.

    Raises:
        ConflictError: The key was wrapped by a master that is not here.
    """

    async def wrap(self, key: bytes, context: str) -> bytes:
        """`key`, readable only by this master and only in the same context."""
        ...

    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """The key that `wrap` was given."""
        ...


class LocalMaster:
    """A master whose keys lie in a file or the environment.

    Args:
        text: Keys of 32 bytes in base64, apart by white space. The first wraps; all unwrap.

    Raises:
        InvalidArgumentError: That is not what `text` holds.
    """

    def __init__(self, text: str) -> None:
        master_keys = _parsed(text)
        self._ids = [blake3(key).digest(_MASTER_ID_BYTES) for key in master_keys]
        self._ciphers = dict(zip(self._ids, map(AESGCM, master_keys), strict=True))

    async def wrap(self, key: bytes, context: str) -> bytes:
        """`key`, readable only by this master and only in the same context."""
        nonce = os.urandom(_NONCE_BYTES)
        newest = self._ids[0]
        return newest + nonce + self._ciphers[newest].encrypt(nonce, key, context.encode())

    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """The key that `wrap` was given."""
        master_id, rest = wrapped[:_MASTER_ID_BYTES], wrapped[_MASTER_ID_BYTES:]
        try:
            cipher = self._ciphers[master_id]
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], context.encode())
        except (KeyError, InvalidTag):
            raise ConflictError(
                f"the key of tenant {context!r} was wrapped by a master key that is not here",
                hint="list the older master key after the newest",
            ) from None


class Keyring:
    """A `Sealer` with the tenants' keys, made when first needed and followed in the state.

    Args:
        state: Where they are kept, wrapped.
        master: Wraps them.
    """

    def __init__(self, state: State, master: Master) -> None:
        self._state = state
        self._master = master
        self._ciphers: dict[str, AESGCM] = {}

    async def load(self) -> None:
        """Learn the keys there are.

        Raises:
            ConflictError: One was wrapped by a master that is not here.
        """
        for record in (await self._state.list(keys.TENANT_KEYS)).records:
            await self._learn(record)

    async def follow(self) -> None:
        """Learn keys that other nodes make, until cancelled."""
        async for change in self._state.watch(keys.TENANT_KEYS):
            match change:
                case Snapshot(records=records):
                    for record in records:
                        await self._try_to_learn(record)
                case Put(record=record):
                    await self._try_to_learn(record)
                case Delete():
                    pass  # what is in use is not forgotten while this process lives

    async def ensure(self, tenant: str) -> None:
        """Have a key for `tenant`; make it where there is none."""
        if tenant in self._ciphers:
            return
        key = keys.tenant_key(tenant)
        wrapped = await self._master.wrap(AESGCM.generate_key(8 * _KEY_BYTES), tenant)
        await self._state.commit([Absent(key)], [Write(key, wrapped)])
        record = await self._state.get(key)
        assert record is not None
        await self._learn(record)

    async def rewrap(self) -> int:
        """Wrap every tenant's key by the newest master key.

        Returns:
            How many keys there are.
        """
        records = (await self._state.list(keys.TENANT_KEYS)).records
        for record in records:
            await self._rewrap_one(record.key)
        return len(records)

    def seal(
        self, tenant: str, chunk_hash: bytes, data: bytes | memoryview
    ) -> Sequence[bytes | memoryview]:
        """The content of a file, in parts, by the key that `ensure` made sure of."""
        return sealing.seal(self._ciphers[tenant], tenant, chunk_hash, data)

    def open(self, chunk_hash: bytes, content: bytes) -> memoryview | None:
        """The chunk in a file's content; None where the content is damaged."""
        return sealing.open_sealed(self._ciphers, chunk_hash, content)

    async def _rewrap_one(self, key: str) -> None:
        tenant = key.removeprefix(keys.TENANT_KEYS)
        for _ in range(_TRIES):
            record = await self._state.get(key)
            assert record is not None
            plain = await self._master.unwrap(record.value, tenant)
            write = Write(key, await self._master.wrap(plain, tenant))
            if await self._state.commit([Unchanged(key, record.mod_revision)], [write]) is not None:
                return
        raise ConflictError(f"the key of tenant {tenant!r} keeps changing", hint="try again")

    async def _learn(self, record: Record) -> None:
        tenant = record.key.removeprefix(keys.TENANT_KEYS)
        self._ciphers[tenant] = AESGCM(await self._master.unwrap(record.value, tenant))

    async def _try_to_learn(self, record: Record) -> None:
        """A master key that is not here yet does not end a node that runs."""
        try:
            await self._learn(record)
        except LeptonError as error:
            _log.error("tenant_key_not_learnt", error=str(error))


def _parsed(text: str) -> list[bytes]:
    try:
        master_keys = [base64.b64decode(word, validate=True) for word in text.split()]
    except binascii.Error:
        master_keys = []
    if not master_keys or any(len(key) != _KEY_BYTES for key in master_keys):
        raise InvalidArgumentError(
            "a master key is not 32 bytes in base64", hint="make one with: openssl rand -base64 32"
        )
    return master_keys
