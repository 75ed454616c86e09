"""Signatures of webhooks, as https://www.standardwebhooks.com lays down.

A receiver checks one with `verify`, or with any library for Standard Webhooks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from lepton_ai.errors import UnauthenticatedError

__all__ = ["ID_HEADER", "SIGNATURE_HEADER", "TIMESTAMP_HEADER", "sign", "verify"]

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
_PREFIX = "whsec_"
_VERSION = "v1,"
_MOST_AGE_S = 300


def sign(secret: str, id_: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of a webhook.

    Args:
        secret: ``whsec_`` and the key in base64.
        id_: Of what is told: the same however often it is sent.
        body: What is sent.
        now: Seconds since the Unix epoch.
    """
    timestamp = str(int(now))
    return {
        ID_HEADER: id_,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: _VERSION + _digest(secret, id_, timestamp, body),
    }


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The id of a webhook that this cluster sent in the last five minutes.

    Args:
        secret: Of the tenant: `Cluster.webhook_secret`.
        headers: Of the request, names in lower case.
        body: As it came.
        now: Seconds since the Unix epoch.

    Raises:
        UnauthenticatedError: It is not signed with this secret, or too old.

    Example:
        >>> secret = "whsec_c2VjcmV0"
        >>> verify(secret, sign(secret, "r-1", b"{}", 1000.0), b"{}", 1010.0)
        'r-1'
    """
    id_, timestamp = headers.get(ID_HEADER, ""), headers.get(TIMESTAMP_HEADER, "")
    given = headers.get(SIGNATURE_HEADER, "").split(" ")
    wanted = _VERSION + _digest(secret, id_, timestamp, body)
    if not any(hmac.compare_digest(one.encode(), wanted.encode()) for one in given):
        raise UnauthenticatedError("the webhook is not signed with this secret")
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > _MOST_AGE_S:
        raise UnauthenticatedError("the webhook is too old, or clocks differ")
    return id_


def _digest(secret: str, id_: str, timestamp: str, body: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise UnauthenticatedError(f"a secret is {_PREFIX} and base64") from None
    content = f"{id_}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
